"""The launcher ``local``: processes of this machine that end with the process that starts them.

A process gets its configuration as the first line of its standard input, which then stays open: when this process ends
in whatever way, it reads the end of it (and on Linux gets SIGTERM from the kernel), and stops. It says on standard
output when it is ready; what it logs is logged with its name in front.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pydantic

from anywire import config as configuration
from anywire.boundary import Boundary
from anywire.errors import ConfigError, LaunchFailed
from anywire.launcher import IMPORTS, Launcher, LauncherConfig, RoleName
from anywire.log_lines import lines_of, readable, relay
from anywire.this_system import IS_POSIX, needs_posix

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds before a process that ended is started again: doubled from the first to the longest."""
LOG_LINES = 100
"""Lines that are kept of what a process logged."""
SHOWN_LINES = 20
"""Lines of them that an error shows."""
OUTPUT_TIMEOUT = 1.0
"""Seconds to read what a process wrote before it ended."""


class LocalProcess:
    """One command through all its lives, a `anywire.launcher.RunningProcess`. `begin` starts it. ``logged`` is called
    with the name and each line that it logs. Without a ``first_line`` it imports the modules ``imports`` and waits
    until `go_on` gives one. With ``logs_itself`` its lines are not read: they go where those of this process go."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        first_line: str | None,
        changed: Callable[[], None] = lambda: None,
        logged: Callable[[str, str], None] = relay,
        imports: Sequence[str] = (),
        logs_itself: bool = False,
    ) -> None:
        self.name = name
        self.host = socket.gethostname()
        self.restarts = 0
        self._command, self._changed, self._log_line = list(command), changed, logged
        self._logs_itself = logs_itself
        self._first_line: str | None = None
        self._imports = list(imports)
        self._may_go_on = asyncio.Event()
        if first_line is not None:
            self.go_on(first_line, changed)
        self._boundary = Boundary()
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._was_ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[str] | None = None

    @property
    def pid(self) -> int:
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process is not None else 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self._running is not None and self._running.done()

    def begin(self) -> None:
        """Start it, and again whenever it ends. Needs a running event loop."""
        self._running = asyncio.get_running_loop().create_task(self._keep_running())

    def go_on(self, first_line: str, changed: Callable[[], None] = lambda: None) -> None:
        """Give it the first line of its standard input, in this life and in all that follow."""
        self._first_line, self._changed = first_line, changed
        self._may_go_on.set()

    async def ready(self) -> None:
        assert self._running is not None
        waiting = asyncio.ensure_future(self._was_ready.wait())
        try:
            await asyncio.wait((waiting, self._running), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not self._was_ready.is_set():
            raise LaunchFailed(f"{self.name} did not start ({self._running.result()}){self._last_words()}")

    async def ended(self) -> str:
        assert self._running is not None
        return await asyncio.shield(self._running)

    def logs(self) -> list[str]:
        return list(self._lines)

    async def stop(self, grace: float = 10.0) -> None:
        self._stopping.set()
        if self._running is None:
            return
        if self._process is not None:
            _signal(self._process, signal.SIGTERM)
        await asyncio.wait((self._running,), timeout=grace)
        if not self._running.done() and self._process is not None:
            log.error("%s (pid %d) did not stop within %.0f s and is killed", self.name, self._process.pid, grace)
            _signal(self._process, signal.SIGKILL)
        await asyncio.wait((self._running,))

    async def _keep_running(self) -> str:
        """Life after life; returns why there is no further one."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                ending = await self._live()
            except (OSError, ValueError) as error:
                ending = f"{self._command[0]} cannot be run: {getattr(error, 'strerror', '') or error}"
            self._changed()
            if self._stopping.is_set():
                return f"stopped ({ending})"
            if not self._was_ready.is_set():
                return ending
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.error("%s ended unexpectedly (%s), again in %.1f s", self.name, ending, pause)
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return f"stopped ({ending})"
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE)
                self.restarts += 1

    async def _live(self) -> str:
        """One life; how it ended."""
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if self._logs_itself else asyncio.subprocess.PIPE,
            # Ctrl-C in the terminal is for this process, which stops its children in order.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        pumps = [asyncio.create_task(self._told(process.stdout))]
        if process.stderr is not None:
            pumps.append(asyncio.create_task(self._logged(process.stderr)))
        asked = asyncio.create_task(self._ask(process.stdin))
        try:
            if self._stopping.is_set():
                _signal(process, signal.SIGTERM)
            code = await process.wait()
            # What it started may still hold the other end of its pipes.
            await asyncio.wait(pumps, timeout=OUTPUT_TIMEOUT)
        except BaseException:
            _signal(process, signal.SIGKILL)
            await process.wait()
            raise
        finally:
            process.stdin.close()
            for each in (*pumps, asked):
                each.cancel()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    async def _ask(self, stdin: asyncio.StreamWriter) -> None:
        if not self._may_go_on.is_set():
            stdin.write(json.dumps({IMPORTS: self._imports}).encode() + b"\n")
            await self._may_go_on.wait()
        assert self._first_line is not None
        stdin.write(self._first_line.encode() + b"\n")

    async def _told(self, stdout: asyncio.StreamReader) -> None:
        async for line in lines_of(stdout):
            log.debug("%s: %s", self.name, line)
            if line.startswith("ready:"):
                self._was_ready.set()
                self._changed()

    async def _logged(self, stderr: asyncio.StreamReader) -> None:
        async for line in lines_of(stderr):
            self._lines.append(line)
            self._boundary.call(f"launcher of {self.name}", "logged", self._log_line, self.name, line, otherwise=None)

    def _last_words(self) -> str:
        """Why it ended, as the end of a sentence: the error it told, else its last lines."""
        if self._logs_itself:
            return "; its lines before this one say why"
        lines = [readable(line) for line in list(self._lines)[-SHOWN_LINES:]]
        if lines and lines[-1].startswith("error: "):
            return f": {lines[-1]}"
        shown = "\n".join(f"    {line}" for line in lines) or "    (it said nothing)"
        return f"; its last lines:\n{shown}"


class LocalLauncher(Launcher):
    """Subclass it and override `command` for processes that are started through another command of this machine."""

    name: ClassVar[str] = "local"
    Config: ClassVar[type[pydantic.BaseModel]] = LauncherConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._processes: list[LocalProcess] = []
        self._prepared: dict[tuple[RoleName, str], LocalProcess] = {}

    def command(self, role: RoleName, name: str) -> list[str]:
        """The command of a process, which must get its standard input and its signals. Called once for each process;
        its later lives are started with the same command. Raises `ConfigError` when it cannot be run here."""
        if not sys.executable:
            raise ConfigError("the launcher local does not find the Python interpreter (sys.executable is empty)")
        return [sys.executable, "-m", "anywire.roles.process", role]

    def logged(self, name: str, line: str) -> None:
        """Called with each line that the process ``name`` writes on standard error, as it comes. Logs it with the name
        in front: see `anywire.log_lines.relay`. It must return quickly. What it raises is logged, and the line is
        dropped."""
        relay(name, line)

    async def prepare(self, role: RoleName, name: str, modules: Sequence[str] = ()) -> None:
        if IS_POSIX and type(self).start is LocalLauncher.start:  # another `start` would not take it over
            process = LocalProcess(name, self._command(role, name), None, logged=self.logged, imports=modules)
            self._prepared[role, name] = process
            self._begin(process)

    async def start(
        self, role: RoleName, config: configuration.Config, name: str, changed: Callable[[], None] = lambda: None
    ) -> LocalProcess:
        needs_posix(f"the launcher {self.name}")
        line = config.model_dump_json()
        prepared = self._prepared.pop((role, name), None)
        if prepared is not None and not prepared.is_over:
            prepared.go_on(line, changed)
            return prepared
        process = LocalProcess(name, self._command(role, name), line, changed, self.logged)
        self._begin(process)
        return process

    async def close(self) -> None:
        processes, self._processes = self._processes, []
        self._prepared.clear()
        await asyncio.gather(*(process.stop() for process in processes))

    def _command(self, role: RoleName, name: str) -> list[str]:
        command: object = self.command(role, name)
        if not isinstance(command, list) or not command or not all(isinstance(each, str) for each in command):
            raise ConfigError(f"command() of the launcher {self.name} gave {command!r:.80}, which is no list of texts")
        return command

    def _begin(self, process: LocalProcess) -> None:
        # Those on demand come and go as long as this process runs.
        self._processes = [each for each in self._processes if not each.is_over] + [process]
        process.begin()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        try:
            process.send_signal(number)
        except ProcessLookupError:
            log.debug("pid %d is gone already", process.pid)
