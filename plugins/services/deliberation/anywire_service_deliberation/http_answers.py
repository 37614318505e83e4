"""What a server answers over HTTP, read: as the type that is expected, or as the error that it tells."""

from __future__ import annotations

from typing import TypeVar

import httpx
import msgspec

from anywire.errors import BY_CODE, AnywireError, ConfigError, InvalidRequest, TaskError, Unauthenticated
from anywire.not_understood import NotUnderstood

MAX_RETRY_AFTER_S = 86_400.0

T = TypeVar("T")


class NothingBehind(NotUnderstood):
    """A proxy answered, which has not reached the server."""


def read_answer(body: bytes, kind: type[T], url: httpx.URL) -> T:
    """Raises `NotUnderstood`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotUnderstood(f"{url} gave no answer of this version: {error}") from error


def error_of(answer: httpx.Response) -> AnywireError:
    """The error that an answer tells."""
    error = told_error(answer.content, answer.status_code, str(answer.url))
    error.retry_after = _seconds(answer.headers.get("retry-after", ""))
    return error


def told_error(body: bytes, status: int, url: str) -> AnywireError:
    """The error of this body; ``status`` 0: it came as an event."""
    try:
        told = msgspec.json.decode(body)["error"]
        message, code, param = str(told["message"]), str(told.get("code") or ""), str(told.get("param") or "")
    except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError, AttributeError):
        kind_of_answer = NothingBehind if status in (502, 503, 504) else NotUnderstood
        return kind_of_answer(f"{url} answered {status or 'events'} with no answer of Anywire's API", status=status)
    if code == "not_found" and status == 404:
        return ConfigError(
            f"no deliberations are kept there: configure the service deliberation of that orchestrator "
            f"(services: [deliberation]); {message}"
        )
    if status == 401:
        return Unauthenticated(f"{message}; set ANYWIRE_API_KEY to a key of this server", status=status)
    kind = BY_CODE.get(code) or (InvalidRequest if 400 <= status < 500 else TaskError)
    return kind(message, param=param, status=status, detail_code="" if code == kind.code else code)


def _seconds(text: str) -> float:
    try:
        return max(0.0, min(float(text), MAX_RETRY_AFTER_S))
    except ValueError:
        return 0.0
