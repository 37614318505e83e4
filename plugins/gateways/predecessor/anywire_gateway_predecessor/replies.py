"""Answers and errors as the predecessor gives them: ``{"error": text, "code"?}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from anywire.errors import AnywireError, NoAgent
from anywire_gateway_openai.errors import CHALLENGE, as_anywire, error_code, retry_after, status_of

_encode = msgspec.json.Encoder().encode
_HEADERS = {"Content-Type": "application/json", "Server": "anywire"}


class Failed(Exception):
    """Ends a request with this answer; ``code`` may be empty. ``headers`` are further ones."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


def reply(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=_encode(value), headers=_HEADERS)


def failed(error: Exception) -> web.Response:
    """The answer that tells ``error``. A fault of ours is logged."""
    if not isinstance(error, Failed):
        error = as_failed(as_anywire(error))
    response = reply(error_json(error), error.status)
    response.headers.update(error.headers)
    return response


def as_failed(error: AnywireError) -> Failed:
    code = "NO_AGENTS" if isinstance(error, NoAgent) else error_code(error).upper()
    status = status_of(error)
    wait = retry_after(error, status)
    headers = {"Retry-After": wait} if wait else {}
    if status == 401:
        headers["WWW-Authenticate"] = CHALLENGE
    return Failed(status, error.message, code, headers)


def error_json(error: Failed) -> dict[str, Any]:
    told = {"error": error.message.encode(errors="replace").decode()}
    return told | ({"code": error.code.encode(errors="replace").decode()} if error.code else {})
