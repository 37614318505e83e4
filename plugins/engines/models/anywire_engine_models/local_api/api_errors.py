"""How errors look to a client of the routes: OpenAI's JSON form, with an HTTP status."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import msgspec
from aiohttp import web

from anywire import errors
from anywire.errors import AnywireError
from anywire.printable import printable

log = logging.getLogger(__name__)

STATUS: dict[type[AnywireError], int] = {
    errors.InvalidRequest: 400,
    errors.ConfigError: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.UnknownCommand: 404,
    errors.ModelStopped: 409,
    errors.PayloadTooLarge: 413,
    errors.QueueFull: 429,
    errors.ShuttingDown: 503,
    errors.DeadlineExceeded: 504,
    errors.TaskError: 502,
    errors.TransportError: 502,
    AnywireError: 500,
}
"""The nearest class of an error decides."""
AGAIN_LATER = frozenset((429, 503))
"""Statuses after which trying again may end otherwise."""


class HttpError(AnywireError):
    """What only HTTP knows: a path or method that is not served, a page that may not, a body that never comes."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, status=status, detail_code=code)
        self.headers = headers or {}


_encode = msgspec.json.Encoder().encode


def status_of(error: AnywireError) -> int:
    """The HTTP status: a server's own for a request that it found at fault, else that of the error's class."""
    if isinstance(error, HttpError) or (isinstance(error, errors.InvalidRequest) and 400 <= error.status < 500):
        return error.status
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def as_anywire(error: Exception) -> AnywireError:
    """``error``, or for a fault of ours one that tells the client only where to look; the log has the rest."""
    if isinstance(error, AnywireError):
        return error
    log.error("a request for the models of this agent failed", exc_info=error)
    return AnywireError("internal error; the agent's log has more")


def error_json(error: AnywireError) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}``."""
    status = status_of(error)
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    code = error.detail_code or ("internal_error" if type(error) is AnywireError else error.code)
    body = {
        "message": _shown(error.message),
        "type": kind,
        "param": _shown(error.param) or None,
        "code": _shown(code),
    }
    return _encode({"error": body})


def error_response(error: AnywireError) -> web.Response:
    """The answer when nothing of a 200 has been sent."""
    status = status_of(error)
    headers = {"Content-Type": "application/json"}
    if status in AGAIN_LATER:
        headers["Retry-After"] = str(math.ceil(min(max(error.retry_after, 1.0), 86_400)))
    else:  # a model that did not start would be started again by a client that tries again by itself
        headers["x-should-retry"] = "false"
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="anywire"'
    if isinstance(error, HttpError):
        headers.update(error.headers)
    return web.Response(status=status, body=error_json(error), headers=headers)


def _shown(text: str) -> str:
    """Without control characters: it is shown on terminals, and part of it may be a server's words."""
    return printable(text.encode(errors="replace").decode())
