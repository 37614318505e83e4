"""One stream, as both ends see it: what waits to be written, the task that writes it and the task that reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import grpc

from anywire.errors import AnywireError
from anywire.large_body import LARGE_BYTES
from anywire.transport import BUFFER_BYTES, Reply
from anywire.transport_tools import NewestStatus, WriteRoom
from anywire_grpc.faults import ENDED, NOT_OPEN, mapped

BATCH_BYTES = 64 * 1024
"""Bytes of a frame that joins several messages. Every receiver takes so many on top of its own limit."""


class Stream(Protocol):
    """What a call and a servicer's context have in common."""

    async def read(self) -> object: ...
    async def write(self, message: bytes, /) -> None: ...


HalfClose = Callable[[], Awaitable[None]]
"""Tells the peer that no more will come; None where the status that ends the call says so."""


class Ending(NamedTuple):
    """How a link ended: the status for a peer that has dialled, and why, in a sentence."""

    code: grpc.StatusCode
    reason: str
    error: AnywireError | None = None
    """What the stream failed with, if that ended it."""
    for_peer: str = ""
    """The reason as a peer that has dialled is told it, when that is not ``reason``."""


CLOSED = Ending(grpc.StatusCode.OK, "it closed")
STOPPED = Ending(grpc.StatusCode.OK, "its stream ended")
"""What the listening end sees of a peer that closed, or whose connection did: gRPC does not tell it which."""

REPLACED = Ending(grpc.StatusCode.ABORTED, "replaced by a new connection")
"""The only one a peer that has dialled is told as `ABORTED`."""

NOBODY = Ending(grpc.StatusCode.UNAVAILABLE, NOT_OPEN)


class Wire:
    """A link, for as long as `run` goes on; those who keep it longer do not keep its stream, and so not its connection.

    ``name``, ``reply`` and ``statuses`` belong to the end that uses it and hold how far the two have introduced
    themselves; ``name`` is the peer's, empty until the link is there. ``buffer_bytes`` may wait for the peer on top of
    what gRPC has taken, which is as much as HTTP/2's flow control allows. ``certificate`` is the one that a peer which
    has dialled has shown, empty where none was asked for. ``link_key`` is that of `anywire.transport_tools.LinkProofs`.
    """

    def __init__(
        self, peer: str, buffer_bytes: int = BUFFER_BYTES, certificate: str = "", link_key: bytes = b""
    ) -> None:
        self.peer, self.certificate, self.link_key = peer, certificate, link_key
        self.room = WriteRoom(buffer_bytes, peer)
        self.reply: Reply | None = None
        self.statuses: NewestStatus | None = None
        self.name = ""
        self.known = asyncio.Event()
        """Set when the peer has its name, or will never have one."""
        self.gone = asyncio.Event()
        """Set when nothing is read or written any more, and whoever used the link was told."""
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[Ending] = self._loop.create_future()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._hello = 0
        self._finishing = False
        self._wake: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        return not self._over.done()

    def introduce(self, data: bytes) -> None:
        """Send the hello, which is the first thing said. It does not count as waiting, so that the first task has all
        the room."""
        if not (self._over.done() or self._finishing):
            self._hello = len(data)
            self._waiting.append(data)
            self._wake_up()

    def send(self, data: bytes, *, bounded: bool = True) -> None:
        """Raises `Congested`; a wire that is over drops it."""
        if self._over.done() or self._finishing:
            return
        if bounded:
            self.room.admit(len(data))
        self._waiting.append(data)
        self._change(len(data))
        self._wake_up()

    async def drain(self) -> None:
        """Wait until there is room, or the wire is over."""
        await self.room.drain()

    def finish(self) -> None:
        """Send what waits, then close: `run` returns when the peer has taken it."""
        self._finishing = True
        self._wake_up()

    def end(self, ending: Ending) -> None:
        """Give up at once; the first reason counts."""
        if not self._over.done():
            self._over.set_result(ending)
        self._waiting.clear()
        self.room.close()

    async def run(self, stream: Stream, half_close: HalfClose | None, received: Callable[[bytes], None]) -> Ending:
        """Read and write until the wire is over; ``received`` gets every frame."""
        reading = self._loop.create_task(self._read(stream, received, STOPPED if half_close is None else CLOSED))
        writing = self._loop.create_task(self._write(stream, half_close))
        try:
            await asyncio.wait((self._over, reading, writing), return_when=asyncio.FIRST_COMPLETED)
            if self.open and writing.done() and half_close is not None:
                writing.result()
                await asyncio.wait((self._over, reading), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.end(CLOSED)
            reading.cancel()
            writing.cancel()
            outcomes = await asyncio.gather(reading, writing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return self._over.result()

    async def _read(self, stream: Stream, received: Callable[[bytes], None], at_end: Ending) -> None:
        try:
            while isinstance(data := await stream.read(), bytes):
                if len(data) > LARGE_BYTES:
                    await asyncio.sleep(0)  # reading has copied it, and decoding is to come
                received(data)
        except ENDED as error:
            self._fail(error)
        else:
            self.end(at_end)

    async def _write(self, stream: Stream, half_close: HalfClose | None) -> None:
        try:
            while self._waiting or not self._finishing:
                if not self._waiting:
                    self._wake = self._loop.create_future()
                    await self._wake
                    continue
                frame = self._next()
                await stream.write(frame)
                self._change(self._hello - len(frame))
                self._hello = 0
            if half_close is not None:
                await half_close()
        except ENDED as error:
            self._fail(error)

    def _next(self) -> bytes:
        """The next message, with those behind it as far as they fit into one frame."""
        waiting = self._waiting
        first = waiting.popleft()
        size = len(first)
        if waiting and size + len(waiting[0]) <= BATCH_BYTES:
            several = [first]
            while waiting and size + len(waiting[0]) <= BATCH_BYTES:
                several.append(waiting.popleft())
                size += len(several[-1])
            first = b"".join(several)
        return first

    def _fail(self, error: Exception) -> None:
        error.__traceback__ = None  # its frames would keep the call, and so the connection, until garbage is collected
        fault = mapped(error, f"the link to {self.peer} failed")
        self.end(Ending(grpc.StatusCode.ABORTED, str(fault), fault))

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _change(self, size: int) -> None:
        """So many bytes wait more; less, when negative. Those that gRPC has not taken wait still."""
        self._bytes += size
        self.room.set_waiting(self._bytes)
