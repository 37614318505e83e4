"""What every system is asked, and what a token looks like: the same for the engines, the agents and the client.

Nothing but the standard library is imported, because a peer's own environment imports it too.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, NamedTuple

MODEL = "bench"
PATH = "/v1/chat/completions"
PROMPT = (
    "You keep the log of a harbour. Below is what the last watch noted. Say in one paragraph what the next watch has "
    "to look after, and leave out what is in order. Noted: the ferry came in at seven with one engine, the crane on "
    "quay two was greased, two lights of the mole are dark, the tide gauge agrees."
)
"""300 bytes, as most questions of one line or two have."""
WORDS = [f"word{number}" for number in range(20)]
ANSWER = " ".join(WORDS)
"""Twenty tokens, given at once where no stream is asked for."""
PROMPT_TOKENS = 75
BURST_TOKENS, PACED_TOKENS = 64, 32
"""Tokens of the two sorts of streams. Engines tell them apart by it: the length of an answer is what every router
passes on as it is."""
PACE = 0.005
"""Seconds between two tokens of a paced stream."""
TOKEN = re.compile(rb"@(\d+) ")
"""A token says when its engine made it, in microseconds of the monotonic clock, which all processes of a machine
share. The blank ends it: one that is still cut in two does not match."""
LONGEST_TOKEN = 24
"""Bytes that an unfinished token can have at most."""


class Phase(NamedTuple):
    """One part of a round: so many clients, each with the next request as soon as it has its answer."""

    name: str
    clients: int
    tokens: int = 0
    """Of each stream; 0 where answers are asked for whole."""


PHASES = (Phase("one", 1), Phase("many", 64), Phase("burst", 32, BURST_TOKENS), Phase("paced", 16, PACED_TOKENS))


def token() -> str:
    """A token made now."""
    return f"@{time.perf_counter_ns() // 1000} "


def pace_of(tokens: int) -> float:
    """Seconds between two tokens of a stream of so many."""
    return PACE if tokens == PACED_TOKENS else 0.0


def usage_of(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}


def request(host: str, tokens: int = 0) -> bytes:
    """The request for a whole answer, or for a stream of so many tokens, with its head."""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
    body |= {"max_tokens": tokens or len(WORDS)} | ({"stream": True} if tokens else {})
    payload = json.dumps(body, separators=(",", ":")).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer sk-bench\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload
