"""Reading what a client sends, in time and never more than allowed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from anywire.errors import InvalidRequest, PayloadTooLarge
from anywire_engine_models.local_api.api_errors import HttpError

BODY_PATIENCE = 30.0
"""Seconds that a body may take to arrive."""
MAX_ID_CHARS = 64

_object = msgspec.json.Decoder(dict[str, Any]).decode


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """The whole body. Raises `PayloadTooLarge` beyond ``limit`` bytes, `InvalidRequest` when it is broken off, and
    `HttpError` when it does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            while not request.content.at_eof():
                body += await request.content.readany()
                if len(body) > limit:
                    raise PayloadTooLarge(f"the body may have at most {limit} bytes")
    except TimeoutError as error:
        raise HttpError(408, "body_timeout", f"the body was not complete after {BODY_PATIENCE:g} seconds") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from error
    return bytes(body)


async def read_object(request: web.BaseRequest, limit: int) -> dict[str, Any]:
    """The body's JSON object, empty where there is no body. Raises as `read_body`, and `InvalidRequest` for what is no
    such object."""
    body = await read_body(request, limit)
    if not body.strip():
        return {}
    try:
        return _object(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the body must be empty or a JSON object: {error}") from error


def number(request: web.BaseRequest, name: str, default: int, most: int) -> int:
    """A parameter of the query. Raises `InvalidRequest`."""
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 0 <= int(text[:10]) <= most:
        raise InvalidRequest(f"{name} must be a number from 0 to {most}, not {text[:32]!r}", param=name)
    return int(text)


def flag(request: web.BaseRequest, name: str) -> bool:
    """A parameter of the query that is on or off. Raises `InvalidRequest`."""
    text = request.query.get(name, "0").lower()
    if text not in ("0", "1", "true", "false"):
        raise InvalidRequest(f"{name} must be 0 or 1, not {text[:32]!r}", param=name)
    return text in ("1", "true")


def position(request: web.BaseRequest) -> str:
    """The id after which a stream of events, or a log, is to go on; empty for none. Raises `InvalidRequest`."""
    after = request.headers.get("Last-Event-ID") or request.query.get("after", "")
    if len(after) > MAX_ID_CHARS:
        raise InvalidRequest(f"after is an id of at most {MAX_ID_CHARS} characters", param="after")
    return after
