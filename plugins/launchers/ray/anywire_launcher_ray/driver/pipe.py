"""The driver's end of the pipe to its launcher."""

from __future__ import annotations

import asyncio
import os
from typing import BinaryIO

from anywire_launcher_ray.messages import MAX_LINE, FromDriver, encode


class Pipe:
    """Orders come on what was standard input, reports go to what was standard output. What others print there, such as
    Ray, goes to standard error from now on, and they read nothing: the processes of Ray inherit both."""

    def __init__(self) -> None:
        self._in: BinaryIO = os.fdopen(os.dup(0), "rb", buffering=0)
        self._out: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def first_line(self) -> bytes:
        """The first order, before there is an event loop. It takes nothing of the second one."""
        line = bytearray()
        while not line.endswith(b"\n") and (byte := self._in.read(1)):
            line += byte
        return bytes(line)

    async def reader(self) -> asyncio.StreamReader:
        """The further orders."""
        reader = asyncio.StreamReader(limit=MAX_LINE)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._in)
        return reader

    def tell(self, message: FromDriver) -> None:
        """Write a report. It waits while the launcher does not read: what it is told is kept in order, and bounded."""
        rest = memoryview(encode(message))
        try:
            while rest:
                rest = rest[self._out.write(rest) or 0 :]
        except BrokenPipeError:
            pass  # the launcher is gone, which the end of the orders tells
