"""What tests of a transport's own do to its wire: a connection in between that breaks, and the log it leaves."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from anywire.testing.recorder import Recorder


class Proxy:
    """A TCP connection in between that can be cut, or hold what it should pass on."""

    def __init__(self, target: int) -> None:
        self.target, self.port, self.connections = target, 0, 0
        self._writers: list[asyncio.StreamWriter] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self.connections += 1
        self._writers += [writer, back]
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def hold(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def close(self) -> None:
        self.flow()
        self.cut()
        if self._server is not None:
            self._server.close()


class Log(Recorder, logging.Handler):
    """What the transport writes to its log, to be waited for. ``tracebacks`` are the lines that have one.

    An event loop's own are none of them: `tests.loop_faults` fails the test in which there was one that counts.
    """

    def __init__(self) -> None:
        Recorder.__init__(self)
        logging.Handler.__init__(self)
        self.tracebacks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.name != "asyncio":
            self.tracebacks.append(record.getMessage())
        self.add(record.getMessage(), record.levelno)

    def count(self, text: str, least: int = logging.WARNING) -> int:
        """Lines of at least that level that contain ``text``."""
        return sum(text in event[0] and event[1] >= least for event in self.events)

    async def says(self, *texts: str) -> None:
        for text in texts:
            await self.until(partial(self._has, text), text)

    def _has(self, text: str) -> bool:
        return any(text in event[0] for event in self.events)
