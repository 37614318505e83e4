"""What a server writes on one of its streams, as lines: bounded in length and number, whatever it writes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from anywire.printable import printable
from anywire.secrecy import without_secrets

LINE_CHARS = 1000
LINE_BYTES = 4 * LINE_CHARS
LINES_A_SECOND = 500
"""Lines of one stream that are told in a second; of the others, their number. llama.cpp writes some ten for a
request."""
TAIL = 20
"""Newest lines that are kept, of those too that are not told."""
NOISE_BYTES = 1024 * 1024
"""Bytes of one stream that are read in a second: a server that writes more waits until the second is over."""


class Output(asyncio.Protocol):
    """One stream of a server. Lines end with a line feed or a carriage return; empty ones are left out.

    ``told`` gets each line, without control characters and secrets. ``tail`` is shared by the streams of a server.
    ``seen`` gets the bytes as they come. `ended` is done at the end of the stream.
    """

    def __init__(
        self, told: Callable[[str], None], tail: deque[str], seen: Callable[[bytes], None] = lambda data: None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._told, self._tail, self._seen = told, tail, seen
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.ReadTransport | None = None
        self._rest = b""
        self._second = self._loop.time()
        self._lines = self._bytes = self._left_out = 0
        self._resume: asyncio.TimerHandle | None = None
        self._is_last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._seen(data)
        *whole, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = rest[:LINE_BYTES]
        self._take([each for each in whole if each])
        self._bytes += len(data)
        if self._bytes > NOISE_BYTES and self._transport is not None and self._resume is None and not self._is_last:
            self._transport.pause_reading()
            self._resume = self._loop.call_at(self._second + 1.0, self._go_on)

    def connection_lost(self, error: Exception | None) -> None:
        if self._resume is not None:
            self._resume.cancel()
        if self._rest:
            self._take([self._rest])
        self._say_left_out()
        if not self.ended.done():
            self.ended.set_result(None)

    def read_rest(self) -> None:
        """Wait for no second any more: its server has ended, and little is left to read."""
        self._is_last = True
        if self._resume is not None:
            self._resume.cancel()
            self._go_on()

    def close(self) -> None:
        """Read no further: somebody who is not of the server holds the stream."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _take(self, lines: list[bytes]) -> None:
        now = self._loop.time()
        if now - self._second >= 1.0:
            self._say_left_out()
            self._second, self._lines, self._bytes = now, 0, 0
        room = max(LINES_A_SECOND - self._lines, 0)
        for line in lines[:room]:
            if text := _text(line):
                self._tail.append(text)
                self._told(text)
        rest = lines[room:]
        self._tail.extend(filter(None, map(_text, rest[-TAIL:])))
        self._lines += len(lines)
        self._left_out += len(rest)

    def _say_left_out(self) -> None:
        count, self._left_out = self._left_out, 0
        if count:
            self._told(f"({count} lines left out: more than {LINES_A_SECOND} in a second)")

    def _go_on(self) -> None:
        self._resume = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _text(line: bytes) -> str:
    return without_secrets(printable(line[:LINE_BYTES].decode(errors="replace"), LINE_CHARS).rstrip())
