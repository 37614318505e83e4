"""A process of a cell: started, spoken to in lines, measured, and ended for sure, were this one killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import psutil

from anywire.errors import AnywireError
from anywire_experiment.record.cells import ProcessUse
from anywire_experiment.run.guarding import Guard, guarded

_LAST_LINES = 12

Died = Callable[["Managed"], None]
"""Told of a process that ended although nobody ended it."""


class CellFailed(AnywireError):
    """A cell cannot be completed; the message is its reason."""

    code = "cell_failed"


class Managed:
    """A process of a cell: started through `anywire_experiment.run.launch`, spoken to in lines, its log a file."""

    KIND: ClassVar[str] = ""
    """What stands before its name where its death is told."""
    ERRORS_TO_LOG: ClassVar[bool] = True
    """Whether its log is its standard error; else `_read` gets that too, and writes the log."""

    def __init__(self, name: str, arguments: Sequence[str], cpus: Sequence[int], log: Path, died: Died) -> None:
        self.name, self._arguments, self._log, self._died = name, list(arguments), log, died
        self.prefix: Sequence[str] = ()
        """Of the command, to run it in another network namespace."""
        self.environment: Mapping[str, str] = {}
        self.python: Sequence[str] = (sys.executable, "-m", "anywire_experiment.run.launch")
        """What starts it: an interpreter with `anywire_experiment.run.launch`."""
        self.without: Collection[str] = ()
        """Names of variables of this process that it does not get."""
        self.use = ProcessUse(list(cpus))
        self.expected_end = False
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._kept = 0.0
        self._now = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, first_line: str = "") -> None:
        """One more life of it."""
        self.expected_end = False
        self._heard = asyncio.Queue()
        guard = await guarded()
        try:
            self._process = await self._launched()
        except BaseException:
            await guard.release()
            raise
        guard.watch(self._process.pid)
        self.use.lives += 1
        self._waiting = asyncio.create_task(self._live(self._process, self._heard, guard))
        if first_line:
            self.say(first_line)

    async def _launched(self) -> asyncio.subprocess.Process:
        cpus = ",".join(map(str, self.use.cpus))
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.prefix,
                *(*self.python, cpus, *self._arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log if self.ERRORS_TO_LOG else asyncio.subprocess.STDOUT,
                env={**_environment(self.without), **self.environment},
                start_new_session=True,
                limit=2**24,
            )

    def say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def hear(self, *events: str, silence: float | None = None) -> dict[str, Any]:
        """The next of these events. Raises `CellFailed` when the process ends before, tells an error, or says nothing
        at all for ``silence`` seconds."""
        while True:
            try:
                async with asyncio.timeout(silence):
                    told = await self._heard.get()
            except TimeoutError:
                raise CellFailed(f"{self.name}: said nothing for {silence:g} s, it hangs") from None
            if told["event"] in events:
                return told
            if told["event"] in ("ended_process", "error"):
                # For whoever listens next.
                self._heard.put_nowait(told)
                reason = told.get("message") or f"ended ({self.use.exit}); its last lines: {self.last_lines()}"
                raise CellFailed(f"{self.name}: {reason}")

    def last_lines(self) -> str:
        if not self._log.exists():
            return "(it was not started)"
        with self._log.open(encoding="utf-8", errors="replace") as log:
            return " | ".join(line.strip() for line in deque(log, _LAST_LINES)) or "(it said nothing)"

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            assert self._process is not None
            self._process.send_signal(number)

    async def kill(self) -> None:
        """End it at once, with all it started."""
        self.expected_end = True
        if not self.alive:
            return
        self.measure()
        for each in self.family():
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        await self._ended()

    async def stop(self, timeout: float) -> None:
        """Ask it to end, and kill it after ``timeout`` seconds."""
        self.expected_end = True
        if self.alive:
            self.measure()
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        await self.ended(timeout)

    async def ended(self, timeout: float) -> None:
        """Wait until it ends, and kill it after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._ended()
        except TimeoutError:
            await self.kill()

    def measure(self) -> float:
        """CPU seconds of all its lives so far; notes its peak of memory."""
        if self.alive:
            cpu, rss = 0.0, 0
            for each in self.family():
                try:
                    cpu += _cpu_seconds(each)
                    rss += _peak(each)
                except psutil.NoSuchProcess:
                    continue
            self._now = cpu
            self.use.max_rss_bytes = max(self.use.max_rss_bytes, rss)
        self.use.cpu_seconds = self._kept + self._now
        return self.use.cpu_seconds

    def family(self) -> list[psutil.Process]:
        """It and everything below it."""
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    async def _ended(self) -> None:
        if self._waiting is not None:
            await asyncio.shield(self._waiting)

    async def _live(
        self, process: asyncio.subprocess.Process, heard: asyncio.Queue[dict[str, Any]], guard: Guard
    ) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        await self._read(process.stdout, heard)
        code = await process.wait()
        process.stdin.close()
        self._kept, self._now = self._kept + self._now, 0.0
        self.use.exit = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        heard.put_nowait({"event": "ended_process"})
        if not self.expected_end:
            self._died(self)
        await guard.release(process.pid)

    async def _read(self, output: asyncio.StreamReader, heard: asyncio.Queue[dict[str, Any]]) -> None:
        """Take in what it tells, to the end. What else it writes, as a library of its may, is passed over."""
        while True:
            try:
                line = await output.readline()
            except ValueError:  # longer than its limit
                continue
            if not line:
                return
            with suppress(msgspec.DecodeError, RecursionError):
                heard.put_nowait(_told(line))


def _told(line: bytes) -> dict[str, Any]:
    """Raises `msgspec.DecodeError` for a line that is no event."""
    found = msgspec.json.decode(line, type=dict[str, Any])
    if not isinstance(found.get("event"), str):
        raise msgspec.ValidationError("there is no event")
    return found


def _environment(without: Collection[str]) -> dict[str, str]:
    """Without settings of whoever runs the experiment: the plan says all of it."""
    return {key: each for key, each in os.environ.items() if not key.startswith("ANYWIRE_") and key not in without}


def _cpu_seconds(process: psutil.Process) -> float:
    """Used so far by all its threads, those that ended too, and by its children that have ended."""
    times = process.cpu_times()
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    if sys.platform == "linux":
        try:
            # The kernel's CPU clock of a process: in ns, where /proc counts ticks of 10 ms.
            return ended + time.clock_gettime_ns(~process.pid << 3 | 2) / 1e9
        except OSError as error:
            raise psutil.NoSuchProcess(process.pid) from error
    else:
        return float(ended + times.user + times.system)


def _peak(process: psutil.Process) -> int:
    """The most memory it had resident, in bytes."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return int(process.memory_info().rss)
