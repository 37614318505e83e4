"""What an OpenAI-compatible server says when it refuses or fails, in any of the shapes in use, turned into errors.

No error tells the server's address: it may be an inner one, and clients see these errors. The log has it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from anywire.errors import EngineFailed, InvalidRequest, Phase, TaskError
from anywire_engine_openai.loading import StillLoading, is_loading
from anywire_engine_openai.mending import mended

MAX_QUOTED = 500  # characters of an unreadable answer that an error message quotes

_NOT_THE_CLIENTS_FAULT = frozenset({401, 403, 407, 408, 425, 429})
"""4xx that speak of the agent's key, the server's load or the connection, not of the request."""

OWN_MEMBERS = frozenset(("id", "object", "created", "model", "choices", "data", "usage", "error", "obfuscation"))
"""Members of an answer that are not its server's to say, or that are passed on by themselves; ``obfuscation`` pads a
single event on a single connection."""


class Said(msgspec.Struct, frozen=True):
    """An error body. ``members`` are those of the error object that have no place of their own."""

    message: str
    param: str = ""
    code: str = ""
    members: dict[str, Any] = {}


_NAMED = frozenset(("message", "code", "param", "object"))
_GENERIC_TYPES = frozenset(("", "invalid_request_error", "server_error"))
"""Types that an error has anyway."""


def read_error(body: bytes) -> Said:
    """An error body in any of the shapes in use."""
    try:
        content = msgspec.json.decode(mended(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Said(quoted(body))
    error = content.get("error", content) if isinstance(content, dict) else content
    if not isinstance(error, dict):
        return Said(_sentence(error))
    detail = error.get("detail")
    message = error.get("message") or detail or quoted(body)
    code = error.get("code")
    if not isinstance(code, str) or code.isdigit():
        code = error.get("type") or ""  # a number repeats the status; the type says more
    members = {name: value for name, value in error.items() if name not in _NAMED and value is not None}
    if isinstance(detail, str):
        del members["detail"]
    kind = members.get("type", "")
    if not isinstance(kind, str) or kind in _GENERIC_TYPES:
        members.pop("type", None)
    # An error without an envelope stands in an event beside what every event has.
    if error is content:
        members = {name: value for name, value in members.items() if name not in OWN_MEMBERS}
    param = error.get("param") or (_place(detail[0]) if isinstance(detail, list) and detail else "")
    return Said(_sentence(message), str(param), str(code), members)


def _sentence(said: Any) -> str:
    """What an error says, as text: FastAPI's list of faults (``loc`` and ``msg`` each) as ``place: fault; …``, anything
    else that is no text as JSON."""
    if isinstance(said, str):
        return said
    if isinstance(said, list) and said and all(isinstance(each, dict) and "msg" in each for each in said):
        return "; ".join([": ".join(filter(None, (_place(each), str(each["msg"])))) for each in said])
    return msgspec.json.encode(said).decode()


def _place(fault: Any) -> str:
    """Where a fault of FastAPI's is, as OpenAI writes it: ``messages[0].role``."""
    parts = fault.get("loc") if isinstance(fault, dict) else None
    if not isinstance(parts, list):
        return ""
    place = ""
    for part in parts[1:] if parts[:1] == ["body"] else parts:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place


def quoted(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    return (text[:MAX_QUOTED] + " …" if len(text) > MAX_QUOTED else text) or "(an empty body)"


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> TaskError:
    """The error that stands for an answer with an HTTP status that is no success; the names of ``headers`` are in lower
    case. A redirect is one: it would have the request executed where nobody said."""
    if 300 <= status < 400:
        return EngineFailed(
            f"the server answered with status {status}, a redirect, which is not followed: set the engine's base_url "
            "to where it leads",
            phase="maybe_sent",
            status=status,
        )
    wait = _milliseconds(headers.get("retry-after-ms", "")) or _seconds(headers.get("retry-after", ""))
    return _error(read_error(body), status, f"answered with status {status}", "maybe_sent", wait)


def error_in_answer(body: bytes, status: int = 0) -> TaskError:
    """The error that a server tells in an answer of status 200, where servers tell those of streamed requests; the
    status it would have had is the error's ``code`` then, and ``status`` without one."""
    return _error(read_error(body), _status_in(body) or status, "reported an error", "streaming", 0.0)


def _error(said: Said, status: int, told: str, phase: Phase, retry_after: float) -> TaskError:
    client_fault = 400 <= status < 500 and status not in _NOT_THE_CLIENTS_FAULT
    is_too_long = _has_too_long_type(said)
    if client_fault or is_too_long or (status in (500, 501) and _UNSUPPORTED.search(said.message)):
        return InvalidRequest(
            said.message,
            phase=phase,
            param=said.param,
            status=status if client_fault else 400,
            detail_code=_TOO_LONG_CODE if is_too_long or _TOO_LONG.search(said.message) else said.code,
            retry_after=retry_after,
            origin="engine",
            members=said.members,
        )
    hint = " (is the engine's api_key right?)" if status in (401, 403) else ""
    failure = StillLoading if is_loading(status, said.message) else EngineFailed
    return failure(
        f"the server {told}: {said.message}{hint}",
        phase=phase,
        status=status,
        detail_code=said.code,
        retry_after=retry_after,
        members=said.members,
    )


def _status_in(body: bytes) -> int:
    """The HTTP status that an error body repeats as its ``code``; 0 where it does not."""
    try:
        error = msgspec.json.decode(mended(body))["error"]
        code = int(error.get("code") or error.get("status_code") or 0)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError, TypeError, ValueError):
        return 0
    return code if 400 <= code < 600 else 0


_UNSUPPORTED = re.compile(
    r"(image|audio|video|multimodal|vision)\b.{0,40}\b(not|n't)\b.{0,20}\b(supported|support)|"
    r"\bnot support\b.{0,40}\b(image|audio|video|multimodal|vision)",
    re.IGNORECASE,
)
"""What a server says of a request that it cannot answer with a status of its own fault (llama.cpp: 500)."""
_TOO_LONG_CODE = "context_length_exceeded"
_TOO_LONG = re.compile(
    r"context (length|size|window)|(prompt|input) is too long|inputs` tokens|"
    r"maximum (model|sequence|prompt|input) length|max_(model|seq)_len",
    re.IGNORECASE,
)
_TOO_LONG_TYPES = frozenset({"exceed_context_size_error", _TOO_LONG_CODE})


def _has_too_long_type(said: Said) -> bool:
    """Whether an error says by its type that the prompt does not fit the context: clients look for OpenAI's code to
    shorten it."""
    kind = said.members.get("type")
    return said.code in _TOO_LONG_TYPES or (isinstance(kind, str) and kind in _TOO_LONG_TYPES)


def _seconds(retry_after: str) -> float:
    """From now on, of a ``Retry-After`` that is a number or a date; 0 for one that is neither, is missing or has
    passed."""
    if not retry_after:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def _milliseconds(retry_after_ms: str) -> float:
    """In seconds, of the finer header that OpenAI and Azure send beside it, or alone."""
    return _seconds(retry_after_ms) / 1e3 if retry_after_ms.replace(".", "", 1).isdecimal() else 0.0
