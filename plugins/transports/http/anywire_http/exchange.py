"""One task at the agent: the answer to its POST, written as the chunks come."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from anywire.errors import Congested
from anywire.messages import Chunk
from anywire_http.wire import JSON_LINES, encode

LOW_WATER = 64
HARD_BOUND = 4096
"""Chunks of one task that may wait for its connection to take them."""


class Exchange:
    """The waiting chunks of one attempt and the response that carries them. ``end`` means that no more will come."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._ended = False
        self._gone = False
        self._wake: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []

    def send(self, chunk: Chunk) -> None:
        line = encode(chunk, self._limit) + b"\n"
        if self._ended:
            return
        if len(self._lines) >= HARD_BOUND:
            raise Congested(f"{len(self._lines)} chunks of this task wait for their reader already")
        self._lines.append(line)
        self._ended = chunk.final
        self._wake_up()

    async def drain(self) -> None:
        while len(self._lines) >= LOW_WATER and not self._gone:
            room = self._loop.create_future()
            self._room.append(room)
            await room

    def end(self) -> None:
        """What waits is still written, then the answer ends."""
        self._ended = True
        self._wake_up()

    def released(self) -> None:
        """The owner has let go of its reply: without a final chunk this is how an attempt ends here."""
        if not self._ended:
            with suppress(RuntimeError):  # the loop is closed: so is everything else
                self._loop.call_soon_threadsafe(self.end)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Write until the end. An answer that is complete at once is one write with its length known."""
        try:
            data = await self._next()
            if self._ended and not self._lines:
                return web.Response(body=data, content_type=JSON_LINES)
            response = web.StreamResponse(headers={"Content-Type": JSON_LINES})
            await response.prepare(request)
            while data:
                await response.write(data)
                data = await self._next()
            await response.write_eof()
            return response
        finally:
            self._ended = self._gone = True
            self._lines.clear()
            self._make_room()

    async def _next(self) -> bytes:
        """Everything that waits, in one piece; empty at the end."""
        while not self._lines and not self._ended:
            self._wake = self._loop.create_future()
            await self._wake
        data = b"".join(self._lines)
        self._lines.clear()
        self._make_room()
        return data

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _make_room(self) -> None:
        for room in self._room:
            if not room.done():
                room.set_result(None)
        self._room.clear()


class TaskReply:
    """The `Reply` its owner holds; when the last reference goes, the exchange ends."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def send(self, chunk: Chunk) -> None:
        self._exchange.send(chunk)

    async def drain(self) -> None:
        await self._exchange.drain()

    def __del__(self) -> None:
        self._exchange.released()
