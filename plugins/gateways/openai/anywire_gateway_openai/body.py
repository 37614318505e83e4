"""Reading a request's body: the right type, in time, and never more than allowed."""

from __future__ import annotations

import asyncio

from aiohttp import web

from anywire.errors import InvalidRequest, PayloadTooLarge
from anywire_gateway_openai.errors import HttpError


async def read_body(request: web.BaseRequest, limit: int, timeout: float, *, any_type: bool = False) -> bytes:
    """The whole body, JSON unless ``any_type``. Raises `PayloadTooLarge` as soon as more than ``limit`` bytes are
    announced, have arrived or come out of decompression, `InvalidRequest` when it is broken off, `HttpError` for
    another media type or when it is not complete after ``timeout`` seconds."""
    headers = request.headers
    media_type = headers.get("Content-Type")
    if not any_type and media_type not in ("application/json", None) and not _is_json(media_type):
        raise HttpError(
            415, "unsupported_media_type", f"send the body as Content-Type: application/json, not {media_type[:128]!r}"
        )
    if (request.content_length or 0) > limit:
        raise _too_large(limit, f"{request.content_length} bytes were announced")
    if "Expect" in headers:
        _continue(request)
    content = request.content
    try:
        # Mostly the body came in the same segment as the headers: no timer then.
        if content.total_bytes or content.is_eof():
            body = await content.readany()
            if content.at_eof():
                if len(body) > limit:
                    raise _too_large(limit, "more arrived")
                return body
        else:
            body = b""
        collected = bytearray(body)
        async with asyncio.timeout(timeout):
            while len(collected) <= limit and not content.at_eof():
                collected += await content.readany()
    except TimeoutError as error:
        raise HttpError(408, "body_timeout", f"the body was not complete after {timeout:g} seconds") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"the body cannot be read: {error.__cause__ or error}") from error
    if len(collected) > limit:
        raise _too_large(limit, "more arrived")
    return bytes(collected)


def _is_json(media_type: str) -> bool:
    return media_type.partition(";")[0].strip().lower() == "application/json"


def _too_large(limit: int, found: str) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body may have at most {limit} bytes (max_body_bytes); {found}")


def _continue(request: web.BaseRequest) -> None:
    """curl, among others, sends a large body only when told to go on."""
    expected = request.headers["Expect"]
    if expected.lower() != "100-continue":
        raise HttpError(417, "expectation_failed", f"cannot meet Expect: {expected[:128]!r}; only 100-continue")
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
