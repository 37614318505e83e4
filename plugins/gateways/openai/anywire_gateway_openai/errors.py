"""How errors look to a client: OpenAI's JSON form, an HTTP status, and whether trying again makes sense."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from random import random

import msgspec
from aiohttp import web

from anywire import errors
from anywire.errors import AnywireError
from anywire.printable import printable
from anywire_gateway_openai.headers import header_text

log = logging.getLogger(__name__)

CLIENT_GONE = 499
"""nginx's "client closed request": the task was cancelled."""
STATUS: dict[type[AnywireError], int] = {
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.UnknownCommand: 404,
    errors.ModelStopped: 409,
    errors.PayloadTooLarge: 413,
    errors.LimitReached: 429,
    errors.QueueFull: 429,
    errors.DeadlineTooShort: 429,
    errors.TaskCancelled: CLIENT_GONE,
    errors.EngineFailed: 502,
    errors.AgentLost: 502,
    errors.StreamCorrupted: 502,
    errors.PluginFailed: 500,
    errors.TransportError: 502,
    errors.NoAgent: 503,
    errors.ShuttingDown: 503,
    errors.Refused: 503,
    errors.Congested: 503,
    errors.AgentUnavailable: 503,
    errors.TransportUnavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.NoProgress: 504,
    errors.ReaderStalled: 408,
    errors.TaskError: 502,
    AnywireError: 500,
}
"""The nearest class of an error decides."""

ENGINES_OWN = {429: 429, 503: 503, 504: 504, 529: 503}
"""Statuses of a failed engine that a client is told, as they tell it when to come back. 529 is known to few."""

FINAL = (
    errors.InvalidRequest,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.ModelNotFound,
    errors.ModelStopped,
    errors.UnknownCommand,
    errors.PayloadTooLarge,
    errors.TaskCancelled,
    errors.DeadlineExceeded,
    errors.ReaderStalled,
)
"""Trying again would end the same way, or cost the same time again: clients are told not to."""
TOLD_WHEN = (errors.LimitReached, errors.QueueFull, errors.DeadlineTooShort)
"""These say when there is room again: before that, trying again would end the same way."""
SPREAD = (errors.QueueFull, errors.DeadlineTooShort)
"""Many clients are told so at once."""
RETRY_AFTER_S = 1
"""Told with 429 and 503 where nobody knows better."""
MAX_RETRY_AFTER_S = 86_400
LONGEST_WAIT_S = 60.0
"""OpenAI's clients wait no longer for a limit, and would try in vain before."""


CHALLENGE = 'Bearer realm="anywire"'
"""What a 401 says of the keys that are taken."""


class HttpError(AnywireError):
    """What only HTTP knows: a path, method or media type that is not served, a page that may not, a body that never
    comes."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, status=status, detail_code=code)
        self.headers = headers or {}


def not_http(message: str | None) -> str:
    """What a client is told that sent what is no HTTP. The rest of the parser's ``message`` is a piece of what came,
    which may hold a key."""
    return f"this is not HTTP as it should be: {(message or 'bad request').partition(':')[0].partition(chr(10))[0]}"


_encoder = msgspec.json.Encoder()


def status_of(error: AnywireError) -> int:
    """The HTTP status: an engine's own for a request it found at fault, and where it has too much to do, else that of
    the error's class."""
    if isinstance(error, errors.EngineFailed) and error.status in ENGINES_OWN:
        return ENGINES_OWN[error.status]
    if isinstance(error, HttpError) or (isinstance(error, errors.InvalidRequest) and 400 <= error.status < 500):
        return error.status
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def as_anywire(error: Exception, task_id: str = "") -> AnywireError:
    """``error``, or for a fault of ours one that tells the client only where to look; the log has the rest."""
    if isinstance(error, AnywireError):
        return error
    log.error("request failed%s", f" (task {task_id})" if task_id else "", exc_info=error)
    return AnywireError(f"internal error{f' in task {task_id}' if task_id else ''}; the orchestrator's log has more")


def error_code(error: AnywireError) -> str:
    """The code that a client is told."""
    if error.detail_code:
        return error.detail_code
    if isinstance(error, errors.Unauthenticated):
        return "invalid_api_key"  # as OpenAI's server says
    return "internal_error" if type(error) is AnywireError else error.code


def error_json(error: AnywireError, *, origin: bool = False) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}``, and in the object what the engine said besides. With
    ``origin`` it says where the error arose: for what has no headers."""
    status = status_of(error)
    kind = error.members.get("type")  # an engine's own
    if not isinstance(kind, str):
        kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    code = error_code(error)
    body: dict[str, object] = {
        "message": printable_text(error.message),
        "type": printable_text(kind),
        "param": printable_text(error.param) or None,
        "code": printable_text(code),
    }
    if origin:
        body["origin"] = error.origin
    try:
        return _encoder.encode({"error": {**error.members, **body}})
    except (TypeError, ValueError, RecursionError):
        return _encoder.encode({"error": body})  # members that are no JSON


def printable_text(text: str) -> str:
    """Without control characters: a client shows it on a terminal, and part of it may be another client's."""
    return printable(text.encode(errors="replace").decode())


def retry_after(error: AnywireError, status: int) -> str:
    """What the header ``Retry-After`` says of ``error``, told with ``status``; empty where it says nothing.

    Where a queue is full the whole seconds are drawn at random, none too few: of clients that are refused at once, and
    would all be told the same second, some come a second later."""
    if error.retry_after > 0:
        drawn = random() if isinstance(error, SPREAD) else 0.0
        return str(math.ceil(min(error.retry_after + drawn, MAX_RETRY_AFTER_S)))
    return str(RETRY_AFTER_S) if status in (429, 503) else ""


class ErrorForm:
    """How errors look to the clients of one API: here of OpenAI's, in a subclass of another one."""

    id_header = ""
    """A header in which these clients look for the id of the request, beside ``x-request-id``."""

    def status(self, error: AnywireError) -> int:
        """The HTTP status that clients of this API know for ``error``."""
        return status_of(error)

    def body(self, error: AnywireError) -> bytes:
        """The JSON that tells ``error``."""
        return error_json(error)


OPENAI_FORM = ErrorForm()


def error_response(error: AnywireError, form: ErrorForm = OPENAI_FORM) -> web.Response:
    """The answer when nothing of a 200 has been sent."""
    status = status_of(error)
    headers = {"Content-Type": "application/json", "Server": "anywire"}
    wait = retry_after(error, status)
    if wait:
        headers["Retry-After"] = wait
    if error.retry_after > 0:
        headers["retry-after-ms"] = str(math.ceil(min(error.retry_after, MAX_RETRY_AFTER_S) * 1000))
    # An engine's own 408, 409 or 429 may well pass.
    if isinstance(error, FINAL) and error.status not in (408, 409, 429) and not error.retry_after:
        headers["x-should-retry"] = "false"
    if error.exhausted or (isinstance(error, TOLD_WHEN) and error.retry_after > LONGEST_WAIT_S):
        headers["x-should-retry"] = "false"
    if isinstance(error, HttpError):
        headers.update(error.headers)
    if status == 401:
        headers["WWW-Authenticate"] = CHALLENGE
    if error.task_id:
        headers["x-anywire-task"] = header_text(error.task_id)
    if error.agent_id:
        headers["x-anywire-agent"] = header_text(error.agent_id)
    if error.origin:
        headers["x-anywire-origin"] = error.origin
    status = form.status(error)
    return web.Response(
        status=status,
        reason="Client Closed Request" if status == 499 else None,
        body=form.body(error),
        headers=headers,
    )
