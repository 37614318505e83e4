"""Reading a request's body: the right type, in time, and never more than allowed."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from aiohttp import web

from anywire.errors import InvalidRequest, PayloadTooLarge
from anywire_gateway_openai.content_coding import codings, undo
from anywire_gateway_openai.errors import HttpError


class BodyRoom:
    """Bounds the memory of all bodies that are under way together, to ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self.most = self.free = most

    def share(self) -> BodyShare:
        return BodyShare(self)


class BodyShare:
    """What one request takes of the room; a context that gives it back."""

    def __init__(self, room: BodyRoom) -> None:
        self._room, self._taken = room, 0

    def take(self, size: int) -> None:
        """Raises `HttpError` when there is no room for so many bytes more."""
        room = self._room
        if size > room.free:
            raise HttpError(
                503,
                "overloaded",
                f"the requests under way have {room.most - room.free} bytes together, of at most {room.most} "
                "(max_bodies_bytes); try again",
            )
        room.free -= size
        self._taken += size

    def give_back(self, size: int) -> None:
        self._room.free += size
        self._taken -= size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back(self._taken)


async def read_body(
    request: web.BaseRequest, limit: int, timeout: float, *, any_type: bool = False, share: BodyShare | None = None
) -> bytes:
    """The whole body, its content coding undone, JSON unless ``any_type``. ``share`` is what its bytes are counted in.

    Raises `PayloadTooLarge` as soon as more than ``limit`` bytes are announced, have arrived or come out of
    decompression, `InvalidRequest` when it is broken off, `HttpError` for another media type, for a coding that is not
    known, when there is no room, or when it is not complete after ``timeout`` seconds."""
    headers = request.headers
    media_type = headers.get("Content-Type")
    if not any_type and media_type not in ("application/json", None) and not _is_json(media_type):
        raise HttpError(
            415, "unsupported_media_type", f"send the body as Content-Type: application/json, not {media_type[:128]!r}"
        )
    coding = headers.get("Content-Encoding")
    undone = codings(coding) if coding is not None else ()
    announced = _announced(request)
    if announced > limit:
        raise _too_large(limit, f"{announced} bytes were announced")
    if "Expect" in headers:
        go_on(request)
    body = await _received(request, limit, timeout, share)
    for name in undone:
        encoded, body = body, await _undone(name, body, limit, share)
        if share is not None:
            share.give_back(len(encoded))
    return body


async def _received(request: web.BaseRequest, limit: int, timeout: float, share: BodyShare | None) -> bytes:
    content = request.content
    try:
        # Mostly the body came in the same segment as the headers: no timer then.
        if content.total_bytes or content.is_eof():
            body = await content.readany()
            if share is not None:
                share.take(len(body))
            if content.at_eof():
                if len(body) > limit:
                    raise _too_large(limit, "more arrived")
                return body
        else:
            body = b""
        collected = bytearray(body)
        async with asyncio.timeout(timeout):
            while len(collected) <= limit and not content.at_eof():
                piece = await content.readany()
                if share is not None:
                    share.take(len(piece))
                collected += piece
    except TimeoutError as error:
        raise HttpError(408, "body_timeout", f"the body was not complete after {timeout:g} seconds") from error
    except web.RequestPayloadError as error:
        cause = error.__cause__ or error
        raise InvalidRequest(f"the body cannot be read: {getattr(cause, 'message', cause)}") from error
    if len(collected) > limit:
        raise _too_large(limit, "more arrived")
    return bytes(collected)


async def _undone(name: str, body: bytes, limit: int, share: BodyShare | None) -> bytes:
    decoded = bytearray()

    def take(piece: bytes) -> None:
        if len(decoded) + len(piece) > limit:
            raise _too_large(limit, "it unpacks to more")
        if share is not None:
            share.take(len(piece))
        decoded.extend(piece)

    await undo(name, body, take)
    return bytes(decoded)


def _announced(request: web.BaseRequest) -> int:
    try:
        return request.content_length or 0
    except ValueError as error:  # thousands of zeros before it
        raise InvalidRequest("Content-Length has too many digits") from error


def _is_json(media_type: str) -> bool:
    return media_type.partition(";")[0].strip().lower() == "application/json"


def _too_large(limit: int, found: str) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body may have at most {limit} bytes (max_body_bytes); {found}")


def go_on(request: web.BaseRequest) -> None:
    """curl, among others, sends a large body only when told to go on."""
    expected = request.headers["Expect"]
    if expected.lower() != "100-continue":
        raise HttpError(417, "expectation_failed", f"cannot meet Expect: {expected[:128]!r}; only 100-continue")
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
