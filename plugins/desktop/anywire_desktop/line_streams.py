"""Lines from standard input and to standard output, each with its bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator

MAX_LINE = 8 * 1024 * 1024
"""Bytes of a line that is read; of a longer one only the fact is told. A chat with a picture has a few MiB."""
MAX_BUFFER = 1024 * 1024
"""Bytes that may wait for the reader of the output before whoever writes more waits."""
_PIECE = 65536


class TooLong(Exception):
    """A line had more than `MAX_LINE` bytes, and was passed over."""


class LineReader:
    """The lines of a file descriptor: a pipe, a socket, a terminal, or a file."""

    def __init__(self, descriptor: int, limit: int = MAX_LINE) -> None:
        self._descriptor, self._limit = descriptor, limit
        self._stream: asyncio.StreamReader | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._was_blocking = os.get_blocking(descriptor)

    async def lines(self) -> AsyncIterator[bytes | TooLong]:
        """Each line without its end, a last one without an end too; `TooLong` in the place of one that is."""
        rest = bytearray()
        too_long = False
        while piece := await self._read():
            start = 0
            while (end := piece.find(b"\n", start)) >= 0:
                rest += piece[start:end]
                start = end + 1
                too_long = too_long or len(rest) > self._limit
                yield TooLong() if too_long else bytes(rest)
                rest.clear()
                too_long = False
            rest += piece[start:]
            if len(rest) > self._limit:
                too_long = True
                rest.clear()
        if rest or too_long:
            yield TooLong() if too_long else bytes(rest)

    def close(self) -> None:
        """Leave the descriptor as it was: a terminal is the shell's again."""
        if self._transport is not None:
            self._transport.close()
            os.set_blocking(self._descriptor, self._was_blocking)

    async def _read(self) -> bytes:
        if not can_wait(self._descriptor):
            return await asyncio.to_thread(os.read, self._descriptor, _PIECE)
        if self._stream is None:
            loop = asyncio.get_running_loop()
            self._stream = stream = asyncio.StreamReader(limit=_PIECE)
            # The pipe is closed with this object alone: its file object must not be collected before.
            pipe = os.fdopen(os.dup(self._descriptor), "rb", buffering=0)
            self._transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        try:
            return await self._stream.read(_PIECE)
        except OSError:
            return b""  # the other end of a socket or terminal went away


class LineWriter:
    """Writes lines to a file descriptor in the order of the calls. Who writes waits while its reader does not read.
    ``closed`` is done once nobody reads any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._output: _Output | None = None
        self._was_blocking = os.get_blocking(descriptor)
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """To be called before the first line."""
        if can_wait(self._descriptor):
            pipe = os.fdopen(os.dup(self._descriptor), "wb", buffering=0)
            loop = asyncio.get_running_loop()
            _, self._output = await loop.connect_write_pipe(lambda: _Output(self.closed), pipe)

    async def write(self, line: bytes) -> None:
        """Write a line; ``line`` has no end of its own. Nothing happens once nobody reads any more."""
        if self.closed.done():
            return
        if self._output is not None:
            await self._output.write(line + b"\n")
            return
        try:
            _write_all(self._descriptor, line + b"\n")  # a file, which makes nobody wait
        except OSError:
            self._end()

    async def close(self, patience: float) -> None:
        """Wait for what was written, at most ``patience`` seconds, and close."""
        if self._output is not None:
            await self._output.close(patience)
            os.set_blocking(self._descriptor, self._was_blocking)
        self._end()

    def _end(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class _Output(asyncio.BaseProtocol):
    def __init__(self, closed: asyncio.Future[None]) -> None:
        self._closed = closed
        self._transport: asyncio.WriteTransport | None = None
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.set_write_buffer_limits(high=MAX_BUFFER)
        self._transport = transport

    def connection_lost(self, exc: BaseException | None) -> None:
        self._room.set()
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    async def write(self, data: bytes) -> None:
        await self._room.wait()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def close(self, patience: float) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.close()  # it writes what is left, then tells
        done, _ = await asyncio.wait({self._closed}, timeout=patience)
        if not done:
            transport.abort()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._closed), patience)


def can_wait(descriptor: int) -> bool:
    """Whether the event loop can wait for a descriptor: a file and ``/dev/null`` are always ready, and it refuses
    them."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
