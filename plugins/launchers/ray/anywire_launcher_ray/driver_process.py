"""The driver's process as the launcher sees it: started, spoken with, and started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from anywire.log_lines import lines_of, readable
from anywire_launcher_ray.messages import (
    MAX_LINE,
    MAX_TEXT,
    Alive,
    Connect,
    Connected,
    Failed,
    Reports,
    ToDriver,
    encode,
    report,
)
from anywire_launcher_ray.pauses import Pauses

log = logging.getLogger(__name__)

END_TIMEOUT = 20.0
"""Seconds that a driver has to stop what it has started, and to end, before it is killed."""
SILENCE = 120.0
"""Seconds without any word from a driver that is connected, after which it is killed: it hangs. Longer than Ray waits
for a lost head."""
SHOWN_LINES = 2
"""Newest lines of a driver that tell why it ended."""
SHOWN_CHARS = 200
"""Characters of each."""
_OF_RAY = re.compile(r"^\[[^\]]* ([A-Z]) \d+ \d+\] (?:\(\w+\) )?[\w.]+:\d+: ")
"""How lines of Ray begin, with the level."""

FOLDER_PREFIX = "anywire-ray-"
MAX_BASE = 15
"""Characters of the temporary folder, at most: Ray makes sockets 88 characters further down, and 104 are possible."""

COMMAND = (sys.executable, "-m", "anywire_launcher_ray.driver")


class DriverProcess:
    """The driver, through all its lives.

    ``connected`` is called when one is connected, ``told`` with every report after that, ``lost`` with the reason when
    it has ended and will be started again. A driver that was never connected is not: it would fail again. Then
    ``ended`` is called, with the reason. All are called on the event loop.
    """

    def __init__(
        self,
        address: str,
        *,
        connected: Callable[[Connected], None],
        told: Callable[[Reports], None],
        lost: Callable[[str, float], None],
        ended: Callable[[str], None],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._address, self._command = address, tuple(command)
        self._connected, self._told, self._lost, self._ended = connected, told, lost, ended
        self._process: asyncio.subprocess.Process | None = None
        self._is_connected = False
        self._was_connected = False
        self._closing = asyncio.Event()
        self._lines: deque[str] = deque(maxlen=SHOWN_LINES)
        self._error = ""
        self._running = asyncio.get_running_loop().create_task(self._keep_running())

    @property
    def pid(self) -> int:
        """Of the newest life; 0 when there is none now."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    def tell(self, message: ToDriver) -> None:
        """Tell the driver that is connected; without effect while none is."""
        process = self._process
        if self._is_connected and process is not None and process.stdin is not None:
            process.stdin.write(encode(message))

    async def close(self) -> None:
        """Have the driver stop everything and end; idempotent. One that takes too long is killed."""
        self._closing.set()
        if self._process is not None:
            self._dismiss(self._process)
        await asyncio.wait((self._running,), timeout=END_TIMEOUT)
        if not self._running.done() and self._process is not None:
            log.error("the driver of Ray (pid %d) did not end within %.0f s and is killed", self.pid, END_TIMEOUT)
            _kill(self._process)
            await asyncio.wait((self._running,))

    def _dismiss(self, process: asyncio.subprocess.Process) -> None:
        """Have it end."""
        assert process.stdin is not None
        process.stdin.close()
        if self._address and not self._is_connected:
            # It has started nothing, and Ray may wait long for a head that does not answer.
            _kill(process)

    async def _keep_running(self) -> None:
        pauses = Pauses()
        while True:
            began = time.monotonic()
            try:
                reason = await self._live()
            except OSError as error:
                reason = f"the driver cannot be run: {error}"
            self._is_connected = False
            if self._closing.is_set() or not self._was_connected:
                return self._ended(reason)
            pause = pauses.after(time.monotonic() - began)
            self._lost(reason, pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
                    return self._ended(reason)

    async def _live(self) -> str:
        """One driver; why it ended."""
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=_base())) if not self._address else None
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=MAX_LINE,
                start_new_session=True,
            )
        except BaseException:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._lines.clear()
        self._error = ""
        logged = asyncio.create_task(self._read_log(process.stderr))
        try:
            process.stdin.write(encode(Connect(self._address, str(folder or ""))))
            if self._closing.is_set():
                self._dismiss(process)
            fault = await self._read_reports(process.stdout)
            if fault:
                _kill(process)
            code = await process.wait()
            await asyncio.wait((logged,), timeout=1.0)
        except BaseException:
            _kill(process)
            await process.wait()
            raise
        finally:
            process.stdin.close()
            logged.cancel()
            if folder is not None:
                _end_cluster(process.pid, folder)
        if fault:
            return fault
        ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        told = [self._error] if self._error else self._lines
        return f"the driver ended, {ending}" + "".join(f"; {line}" for line in told)

    async def _read_reports(self, stdout: asyncio.StreamReader) -> str:
        """Until there are no more; what was wrong with them, or the failure that they tell."""
        while True:
            try:
                async with asyncio.timeout(SILENCE if self._is_connected else None):
                    line = await stdout.readline()
                if not line:
                    return ""
                told = report(line)
            except TimeoutError:
                return f"the driver hangs: it said nothing for {SILENCE:g} s"
            except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
                return f"the driver wrote what is no report: {error}"
            match told:
                case Failed(reason):
                    return reason
                case Alive():
                    pass
                case Connected() if self._is_connected:
                    return "the driver wrote what is no report: it is connected twice"
                case Connected():
                    self._is_connected = self._was_connected = True
                    self._connected(told)
                case _:
                    self._told(told)

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        async for whole in lines_of(stderr, MAX_TEXT):
            if not (line := whole.strip()):
                continue
            if (error := error_of_ray(line)) is not None:
                self._error = error or self._error
            else:
                self._lines.append(readable(line)[:SHOWN_CHARS])
            log.debug("driver of Ray: %s", line)


def _base() -> str | None:
    """Where the folder of a cluster is made; None for where temporary folders are."""
    return "/tmp" if len(tempfile.gettempdir()) > MAX_BASE else None


def _end_cluster(driver: int, folder: Path) -> None:
    """End what a driver that has ended left of its cluster: Ray's helpers, which are of its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(driver, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def error_of_ray(line: str) -> str | None:
    """The error that a line of Ray tells; empty for its news, those of its other processes and dumps of its state; None
    for a line that is not Ray's."""
    if begins := _OF_RAY.match(line):
        # Its first sentence: the others say where to look for more.
        return line[begins.end() :].split(". ")[0][:SHOWN_CHARS] if begins[1] in "ECF" else ""
    return "" if line.startswith(("[state-dump]", "(raylet", "\x1b[33m(raylet", "\x1b[36m(")) else None


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
