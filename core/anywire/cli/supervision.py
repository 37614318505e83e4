"""Child processes that end with their parent, and are started again when they end on their own.

A child gets its configuration as the first line of its standard input, which then stays open: when the parent ends
in whatever way, the child reads the end of it (and on Linux gets SIGTERM from the kernel), and stops. Its standard
output says when it is ready; what it logs passes through with its name in front.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from anywire.errors import AnywireError, ConfigError

if TYPE_CHECKING:
    from anywire.cli.eventloop import Stop
    from anywire.config import Config

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
_PR_SET_PDEATHSIG = 1
_KEPT_LINES = 20
_LAST_WORDS = 1.0
"""Seconds to read what a child wrote before it ended."""


class ChildFailed(AnywireError):
    """A child process ended before it was ready."""

    code = "child_failed"


class Child:
    """One life after another of ``python -m ARGUMENTS``."""

    def __init__(self, name: str, arguments: list[str], first_line: str) -> None:
        self.name = name
        self.ready = asyncio.Event()
        """Set when it was ready once."""
        self._arguments, self._first_line = arguments, first_line
        self._process: asyncio.subprocess.Process | None = None
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self._stopping = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    async def keep_running(self) -> None:
        """Start it, and again whenever it ends, after a pause that doubles as long as it keeps ending soon.
        Raises `ChildFailed` when it ends before it was ready for the first time: it would do so again."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            ending = await self._live()
            if self._stopping:
                return
            lines = "\n".join(f"    {line}" for line in self._last) or "    (it said nothing)"
            if not self.ready.is_set():
                raise ChildFailed(f"{self.name} did not start ({ending}); its last lines:\n{lines}")
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.error(
                "%s ended unexpectedly (%s), again in %.1f s; its last lines:\n%s", self.name, ending, pause, lines
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def stop(self, timeout: float) -> None:
        """Ask it to stop, and kill it after ``timeout`` seconds."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await process.wait()
        except TimeoutError:
            log.error("%s (pid %d) did not stop within %.0f s and is killed", self.name, process.pid, timeout)
            _signal(process, signal.SIGKILL)
            await process.wait()

    async def _live(self) -> str:
        """One life; how it ended."""
        self._last.clear()
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Ctrl-C in the terminal is for the parent, which stops its children in order.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        pumps = [asyncio.create_task(self._told(process.stdout)), asyncio.create_task(self._logged(process.stderr))]
        try:
            process.stdin.write(self._first_line.encode() + b"\n")
            code = await process.wait()
            # What it started may still hold the other end of its pipes.
            await asyncio.wait(pumps, timeout=_LAST_WORDS)
        except BaseException:
            _signal(process, signal.SIGKILL)
            await process.wait()
            raise
        finally:
            process.stdin.close()
            for pump in pumps:
                pump.cancel()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    async def _told(self, stdout: asyncio.StreamReader) -> None:
        async for line in _lines(stdout):
            if line.startswith("ready:"):
                self.ready.set()
            log.info("%s: %s", self.name, line)

    async def _logged(self, stderr: asyncio.StreamReader) -> None:
        async for line in _lines(stderr):
            self._last.append(line)
            print(f"[{self.name}] {line}", file=sys.stderr, flush=True)


class Children:
    """Several children of equal arguments, each with a configuration of its own."""

    def __init__(self, configs: Mapping[str, Config], arguments: list[str], timeout: float) -> None:
        self.members = [Child(name, arguments, config.model_dump_json()) for name, config in configs.items()]
        self._timeout = timeout
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(child.keep_running()) for child in self.members]

    async def failure(self) -> None:
        """Wait until one of them fails for good, and raise that."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def ready(self) -> None:
        """Wait until every one of them was ready once."""
        await asyncio.gather(*(child.ready.wait() for child in self.members))

    async def stop(self) -> None:
        """End all of them; idempotent."""
        await asyncio.gather(*(child.stop(self._timeout) for child in self.members))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def inherited_config() -> Config:
    """In a child: the configuration its parent has written."""
    from anywire.config import Config

    if sys.platform == "linux":
        # SIGTERM, not SIGKILL: an engine may have processes of its own to end.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        raise ConfigError("--supervised is for the processes that anywire starts itself")
    return Config.model_validate_json(line)


def stop_with_parent(stop: Stop) -> None:
    """In a child: stop at the end of standard input."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.request("the parent process ended")

    loop.add_reader(descriptor, readable)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        try:
            process.send_signal(number)
        except ProcessLookupError:
            log.debug("pid %d is gone already", process.pid)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines of any length, however broken their encoding."""
    rest = b""
    while block := await reader.read(65536):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
