"""Answers to a client: JSON, and streams of events or of lines of JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from anywire_engine_models.local_api.api_errors import as_anywire, error_json

EVENT_STREAM = "text/event-stream"
JSON_LINES = "application/x-ndjson"
HEARTBEAT = 15.0
"""Seconds without an event after which a comment is sent, so that client and server notice when the other is gone."""
WRITE_PATIENCE = 30.0
"""Seconds that a client may take nothing of what is sent; then its connection is cut."""
COMMENT = b":\n\n"
PAGE_HEADERS: web.RequestKey[dict[str, str]] = web.RequestKey("page_headers", dict)
"""Here a request keeps the headers that its answer needs for a browser's page."""

# Some clients split lines at every line break Unicode knows, not only where the standard says.
_LINE_BREAKS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))

_encode = msgspec.json.Encoder().encode


def json_of(value: object) -> bytes:
    """``value`` as JSON on one line. Unpaired surrogates (half an emoji, say) are replaced: UTF-8 cannot carry them."""
    try:
        data = _encode(value)
    except UnicodeEncodeError:
        data = _encode(_encodable(value))
    for raw, escaped in _LINE_BREAKS if not data.isascii() else ():
        data = data.replace(raw, escaped)
    return data


def json_response(value: object) -> web.Response:
    return web.Response(body=json_of(value), content_type="application/json")


def event(data: bytes, name: str = "", event_id: str = "") -> bytes:
    """One server-sent event; ``data`` is `json_of` something."""
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {name}\n" if name else "")
    return b"".join((head.encode(), b"data: ", data, b"\n\n"))


def wants_events(request: web.BaseRequest) -> bool:
    return EVENT_STREAM in request.headers.get("Accept", "")


class StreamedAnswer:
    """An answer that is written piece by piece; its head goes out with the first."""

    def __init__(self, request: web.BaseRequest, content_type: str = EVENT_STREAM) -> None:
        self._request = request
        headers = {"Content-Type": content_type, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self.response = web.StreamResponse(headers={**headers, **request.get(PAGE_HEADERS, {})})

    @property
    def begun(self) -> bool:
        """Whether the head is on its way: an error has no status of its own any more."""
        return self.response.prepared

    async def write(self, data: bytes) -> None:
        """Returns when the client has room for more. Raises `ConnectionError` when it is gone, or took nothing for
        `WRITE_PATIENCE` seconds."""
        if not self.begun:
            await self.response.prepare(self._request)
        try:
            async with asyncio.timeout(WRITE_PATIENCE):
                await self.response.write(data)
        except TimeoutError as error:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError(f"it took nothing for {WRITE_PATIENCE:g} s") from error

    async def end(self, last: bytes = b"") -> web.StreamResponse:
        if last or not self.begun:
            await self.write(last)
        await self.response.write_eof()
        return self.response


class Results(StreamedAnswer):
    """Results of a command: events where the client accepts them or ``as_events`` is set, else lines of JSON. An
    error is the last."""

    def __init__(self, request: web.BaseRequest, *, as_events: bool = False) -> None:
        self.as_events = as_events or wants_events(request)
        super().__init__(request, EVENT_STREAM if self.as_events else JSON_LINES)

    async def result(self, value: Any, name: str = "", event_id: str = "") -> None:
        """``name`` and ``event_id`` are those of its event."""
        await self.write(event(json_of(value), name, event_id) if self.as_events else json_of(value) + b"\n")

    async def finish(self, error: Exception | None = None) -> web.StreamResponse:
        """End it. Raises ``error`` where it can still have a status of its own."""
        if error is None:
            return await self.end(event(b"{}", "end") if self.as_events else b"")
        if not self.begun:
            raise error
        told = error_json(as_anywire(error))
        return await self.end(event(told, "error") if self.as_events else told + b"\n")


def _encodable(value: object) -> object:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_encodable(name): _encodable(each) for name, each in value.items()}
        case list() | tuple():
            return [_encodable(each) for each in value]
    return value
