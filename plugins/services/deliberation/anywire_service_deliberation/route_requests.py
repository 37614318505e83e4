"""What a request for a deliberation's routes says: its body, how long it waits, which part of a list it wants."""

from __future__ import annotations

import math
import re
from typing import Any, TypeVar, get_args

import msgspec

from anywire.errors import InvalidRequest
from anywire.route import Request
from anywire_service_deliberation.offered import LONGEST_WAIT, MAX_LISTED
from anywire_service_deliberation.record import Status

LISTED = 100
MAX_PRIORITY = 1000
_INTEGER = re.compile(r"[+-]?[0-9]{1,4}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?")

T = TypeVar("T")


def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request."""
    return read(request.body, dict[str, Any])


def read(body: bytes, kind: type[T]) -> T:
    """The body as this type. Raises `InvalidRequest` that names the member at fault."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        param = where.removesuffix("`").lstrip(".")
        raise InvalidRequest(f"{param or 'the body'}: {message}", param=param) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the body must be a JSON object: {error}") from error


def wait_of(request: Request) -> float:
    """The seconds of the header ``Prefer: wait=10`` (RFC 7240), at most `LONGEST_WAIT`; 0 without it. A preference that
    says nothing is passed over, as that standard wants."""
    for preference in request.headers.get("prefer", "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            try:
                seconds = float(value.strip().strip('"'))
            except ValueError:
                return 0.0
            return min(seconds, LONGEST_WAIT) if seconds > 0 and math.isfinite(seconds) else 0.0
    return 0.0


def trace_of(request: Request) -> str:
    """The W3C trace context of the header ``traceparent``; empty without one, and for an invalid one, which is ignored
    as that standard demands."""
    text = request.headers.get("traceparent", "")
    return text if _TRACEPARENT.fullmatch(text) else ""


def priority_of(request: Request) -> int:
    """The header ``x-anywire-priority``, as requests for tasks have it; 0 without it."""
    text = request.headers.get("x-anywire-priority", "0")
    priority = int(text) if _INTEGER.fullmatch(text) else MAX_PRIORITY + 1
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise InvalidRequest(
            f"header x-anywire-priority must be an integer from -{MAX_PRIORITY} to {MAX_PRIORITY}, got {text[:64]!r}",
            param="x-anywire-priority",
        )
    return priority


def status_of(request: Request) -> str:
    """The ``status`` that a list is narrowed to; empty for all."""
    status = request.query.get("status", "")
    if status and status not in get_args(Status):
        raise InvalidRequest(
            f"there is no status {status[:64]!r}; there are {', '.join(get_args(Status))}", param="status"
        )
    return status


def limit_of(request: Request) -> int:
    """How many a list has at most."""
    text = request.query.get("limit", str(LISTED))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidRequest(f"limit must be a number from 1 to {MAX_LISTED}, got {text[:64]!r}", param="limit")
    return limit


def after_of(request: Request) -> int:
    """The number of the update after which a stream begins: the header ``Last-Event-ID``, else ``?after=``."""
    text = request.headers.get("last-event-id") or request.query.get("after") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest(f"after must be the id of an event, a number, got {text[:64]!r}", param="after")
    return int(text)
