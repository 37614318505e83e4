"""Answers written as bytes straight to the connection.

aiohttp's own response objects cost about as much as everything else a request does in this gateway; the two
answers that matter for speed, a whole answer and an event stream, know every header beforehand and skip them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from email.utils import formatdate

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from anywire_gateway_openai.notes import HEADERS

HIGH_WATER = 64 * 1024
"""Bytes that may wait for a slow client before its task is no longer read; asyncio's own bound."""
EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"

_END = ("",)
"""Behind the last header of an answer."""
_date = (0, "")


def _http_date() -> str:
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]


def _head(request: web.BaseRequest, keep_alive: bool, headers: Iterable[tuple[str, str]], framing: str) -> bytes:
    if request.version == HttpVersion11:
        connection = "" if keep_alive else "Connection: close\r\n"
    else:
        connection = "Connection: keep-alive\r\n" if keep_alive else ""
    own = "\r\n".join(map(": ".join, (*request.get(HEADERS, ()), *headers, _END)))
    return f"HTTP/1.1 200 OK\r\n{framing}Date: {_http_date()}\r\nServer: anywire\r\n{connection}{own}\r\n".encode()


class WrittenResponse(web.StreamResponse):
    """Tells aiohttp that the answer is out already; it only asks whether the connection stays."""

    def __init__(self, keep_alive: bool, status: int = 200) -> None:
        # Not StreamResponse's own constructor: it prepares headers that nobody would send.
        self._keep_alive: bool | None = keep_alive
        self._status = status

    @property
    def keep_alive(self) -> bool | None:
        return self._keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def write_json(request: web.BaseRequest, body: bytes, headers: Iterable[tuple[str, str]]) -> WrittenResponse:
    """Answer 200 with ``body``. Header values must be free of line breaks. Raises `ConnectionResetError` when the
    client is gone."""
    return await write_answer(request, body, JSON, headers)


async def write_answer(
    request: web.BaseRequest, body: bytes, content_type: str, headers: Iterable[tuple[str, str]]
) -> WrittenResponse:
    """The same with a ``body`` of any media type."""
    keep_alive = request.keep_alive
    framing = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    transport = open_transport(request)
    transport.write(_head(request, keep_alive, headers, framing) + body)
    if transport.get_write_buffer_size() > HIGH_WATER:
        await request.writer.drain()
    return WrittenResponse(keep_alive)


def open_transport(request: web.BaseRequest) -> asyncio.Transport:
    """Raises `ConnectionResetError` when the client is gone."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has closed the connection")
    return transport


async def room(request: web.BaseRequest, transport: asyncio.Transport, timeout: float) -> None:
    """Wait until little of what was written still waits. Raises `ConnectionResetError` when the client took nothing
    for ``timeout`` seconds: the connection is cut then."""
    if transport.get_write_buffer_size() <= HIGH_WATER:
        return
    try:
        async with asyncio.timeout(timeout):
            await request.writer.drain()
    except TimeoutError as error:
        transport.abort()
        raise ConnectionResetError(f"it took nothing for {timeout:g} s") from error


class EventStreamWriter:
    """An event stream, or lines of another ``content_type``, being written: the head goes out with the first of them,
    each `write` is one segment."""

    def __init__(
        self,
        request: web.BaseRequest,
        headers: Iterable[tuple[str, str]],
        timeout: float,
        content_type: str = EVENT_STREAM,
    ) -> None:
        self._request = request
        self._timeout = timeout
        # An HTTP/1.0 client reads until the connection closes.
        self._chunked = request.version == HttpVersion11
        self.keep_alive = request.keep_alive and self._chunked
        framing = f"Content-Type: {content_type}\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
        if self._chunked:
            framing += "Transfer-Encoding: chunked\r\n"
        self._unsent = _head(request, self.keep_alive, headers, framing)
        self.wants_events = request.method != "HEAD"
        """Whether the client wants the events, too; for one that wants the head alone call `end_head`."""

    def end_head(self) -> WrittenResponse:
        """Answer a HEAD request. Raises `ConnectionResetError` when the client is gone."""
        open_transport(self._request).write(self._unsent)
        return WrittenResponse(self.keep_alive)

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send ``data``; returns when the client has room for more. Raises `ConnectionResetError` when the client
        is gone, or took nothing for ``timeout`` seconds: the connection is cut then."""
        transport = open_transport(self._request)
        if not data and not last:
            return  # an empty chunk would end the body
        transport.write(self._framed(data, last))
        if transport.get_write_buffer_size() > HIGH_WATER:
            await room(self._request, transport, self._timeout)

    @property
    def has_room(self) -> bool:
        """Whether the client is there and takes what is written: `write_at_once` may be called."""
        transport = self._request.transport
        return transport is not None and not transport.is_closing() and transport.get_write_buffer_size() <= HIGH_WATER

    def write_at_once(self, data: bytes) -> None:
        """Send ``data`` without waiting for room; see `has_room`."""
        if data:
            open_transport(self._request).write(self._framed(data, last=False))

    def write_if_idle(self, data: bytes) -> None:
        """Send ``data`` unless earlier data still waits for the client. Raises `ConnectionResetError` when that is
        gone."""
        transport = open_transport(self._request)
        if not transport.get_write_buffer_size():
            transport.write(self._framed(data, last=False))

    def _framed(self, data: bytes, last: bool) -> bytes:
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""  # an empty chunk would be the end already
            if last:
                data += b"0\r\n\r\n"
        if self._unsent:
            data = self._unsent + data
            self._unsent = b""
        return data
