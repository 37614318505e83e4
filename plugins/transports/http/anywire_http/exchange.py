"""One task or command at the agent: the answer to its POST, written as the chunks or results come."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from anywire.messages import FromAgent, Progress
from anywire.transport_tools import WriteRoom
from anywire_http.wire import JSON_LINES, ProgressLine, check_size, encode, encoded_limit, is_last


class HubRoom:
    """What waits for one hub, in all its answers together."""

    def __init__(self, buffer_bytes: int, peer: str) -> None:
        self.room = WriteRoom(buffer_bytes, peer)
        self._waiting = 0

    def put(self, size: int) -> None:
        """Raises `Congested`; otherwise so many bytes wait more."""
        self.room.admit(size)
        self._change(size)

    def take(self, size: int) -> None:
        """So many bytes wait no more."""
        self._change(-size)

    def _change(self, size: int) -> None:
        self._waiting += size
        self.room.set_waiting(self._waiting)


class Exchange:
    """The waiting chunks of one attempt, or results of one command, and the response that carries them. ``end`` means
    that no more will come. ``key`` is the request's `anywire_http.wire.key_of`."""

    def __init__(self, key: tuple[str, int], max_message_bytes: int, room: HubRoom) -> None:
        self._key = key
        self._max_message_bytes = max_message_bytes
        self._hub_room = room
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._size = 0
        self._ended = False
        self._begun = False
        self._gone = False
        self._wake: asyncio.Future[None] | None = None

    def send(self, message: FromAgent) -> None:
        if self._ended:
            return
        check_size(message, self._max_message_bytes)
        content = ProgressLine(message) if isinstance(message, Progress) else message
        line = encode(content, encoded_limit(self._max_message_bytes) - 1) + b"\n"
        self._hub_room.put(len(line))
        self._lines.append(line)
        self._size += len(line)
        self._ended = is_last(message, self._key)
        self._wake_up()

    async def drain(self) -> None:
        if not self._gone:
            await self._hub_room.room.drain()

    def begin(self) -> None:
        """Send the head of the answer, though nothing is to be said yet: the hub sees that its request has arrived."""
        self._begun = True
        self._wake_up()

    def end(self) -> None:
        """What waits is still written, then the answer ends."""
        self._ended = True
        self._wake_up()

    def released(self) -> None:
        """The owner has let go of its reply: without a final chunk or result this is how it ends here."""
        if not self._ended:
            with suppress(RuntimeError):  # the loop is closed: so is everything else
                self._loop.call_soon_threadsafe(self.end)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Write until the end. An answer that is complete at once is one write with its length known."""
        try:
            while not (self._lines or self._ended or self._begun):
                await self._woken()
            if self._is_whole():
                return await self._whole(request)
            response = web.StreamResponse(headers={"Content-Type": JSON_LINES})
            await response.prepare(request)
            while data := await self._next():
                await response.write(data)
                self._written(len(data))
            await response.write_eof()
            return response
        finally:
            self._ended = self._gone = True
            self._lines.clear()
            self._written(self._size)

    async def _next(self) -> bytes:
        """Everything that waits, in one piece; empty at the end."""
        while not self._lines and not self._ended:
            await self._woken()
        data = b"".join(self._lines)
        self._lines.clear()
        return data

    def _is_whole(self) -> bool:
        """Whether nothing will be added to what waits."""
        return self._ended

    async def _whole(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(body=b"".join(self._lines), content_type=JSON_LINES)
        await response.prepare(request)
        await response.write_eof()
        return response

    async def _woken(self) -> None:
        self._wake = self._loop.create_future()
        await self._wake

    def _written(self, size: int) -> None:
        self._size -= size
        self._hub_room.take(size)

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Answer:
    """The `Reply` its owner holds; when the last reference goes, the exchange ends."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def send(self, message: FromAgent) -> None:
        self._exchange.send(message)

    async def drain(self) -> None:
        await self._exchange.drain()

    def __del__(self) -> None:
        self._exchange.released()
