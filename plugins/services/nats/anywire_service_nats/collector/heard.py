"""From the payload of an answer that somebody has published to what is counted of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from anywire.collected_answers import CollectedAnswer
from anywire.printable import printable
from anywire_service_nats.listening.plain_json import NOT_PLAIN, is_plain

MAX_ID_CHARS = 256
"""Characters of the id of a task, of an agent and of a story."""
MAX_ROLE_CHARS = 64
MAX_ERROR_CHARS = 4000
MAX_PROPOSAL_BYTES = 256 * 1024
"""Bytes of a proposal as JSON, of which all is kept; of a longer one the beginning of its text is."""
MAX_AGENTS = 1000
"""Agents of one task at most."""
SHORT_BYTES = 200
"""Bytes of what an answer says that are kept where its task has no room for more."""
NO_ERROR_NAMED = "it names no error"


class NotAnAnswer(Exception):
    """The payload is no answer of an agent; the message says what is wrong with it."""


class Heard(msgspec.Struct, frozen=True):
    """One answer or failure. ``wanted`` is how many agents were asked, 0 where it does not say."""

    task_id: str
    answer: CollectedAnswer
    wanted: int = 0
    story_id: str = ""


def read_heard(payload: Mapping[str, Any], at: float, *, failed: bool) -> Heard:
    """``failed`` is whether it was published as a failure, ``at`` the Unix time of that. Raises `NotAnAnswer`."""
    constraints = _object(payload.get("constraints"))
    metadata = _object(constraints.get("metadata"))
    proposal = payload.get("proposal")
    error = ""
    if failed:
        error = _text(payload.get("error"), MAX_ERROR_CHARS) or NO_ERROR_NAMED
    elif proposal is None:
        raise NotAnAnswer("it has no proposal")
    return Heard(
        _id(payload, "task_id"),
        CollectedAnswer(
            _id(payload, "agent_id"),
            _text(payload.get("role"), MAX_ROLE_CHARS),
            None if failed else _kept(proposal),
            error,
            _text(payload.get("error_type"), MAX_ROLE_CHARS) if failed else "",
            _milliseconds(payload.get("duration_ms")),
            at,
        ),
        _count(payload.get("num_agents")) or _count(metadata.get("num_agents")),
        _text(constraints.get("story_id") or metadata.get("story_id"), MAX_ID_CHARS),
    )


def shortened(heard: Heard) -> Heard:
    """The same with the beginning of what it says alone: its task has no room for more."""
    answer = heard.answer
    if answer.failed:
        answer = msgspec.structs.replace(answer, error=answer.error[:SHORT_BYTES])
    else:
        answer = msgspec.structs.replace(answer, proposal=_beginning(answer.proposal, SHORT_BYTES))
    return msgspec.structs.replace(heard, answer=answer)


def _kept(proposal: Any) -> Any:
    """The proposal, or the beginning of what it says where it is too long, or has what cannot be kept."""
    if is_plain(proposal) and len(msgspec.json.encode(proposal)) <= MAX_PROPOSAL_BYTES:
        return proposal
    try:
        return _beginning(proposal, MAX_PROPOSAL_BYTES // 2)
    except RecursionError:
        raise NotAnAnswer(f"its proposal {NOT_PLAIN}") from None


def _beginning(proposal: Any, most: int) -> Any:
    text = CollectedAnswer("", proposal=proposal).text
    return {"content": text.encode()[:most].decode(errors="ignore"), "cut": True}


def _id(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        raise NotAnAnswer(f"it has no {name}")
    if len(value) > MAX_ID_CHARS or not value.isprintable():
        raise NotAnAnswer(f"its {name} has more than {MAX_ID_CHARS} characters, or some that cannot be printed")
    return value


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any, most: int) -> str:
    return printable(value, most) if isinstance(value, str) else ""


def _count(value: Any) -> int:
    """A number of agents, also one that is text, as metadata has it; 0 for everything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 9:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 < value <= MAX_AGENTS else 0


def _milliseconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return int(max(0, min(value, 1e12)))
