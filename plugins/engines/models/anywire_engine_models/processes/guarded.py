"""A program with a guardian in front of it, as its owner sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from anywire_engine_models.host.server import Exit
from anywire_engine_models.processes.output import TAIL, Output

GUARDIAN = Path(__file__).with_name("guardian.py")
OUTPUT_TIMEOUT = 1.0
"""Seconds to read what a program wrote before it ended: somebody else may hold the other end of its streams."""
GUARDIAN_TIMEOUT = 3.0
"""Seconds that a guardian has for killing, until it is killed itself."""

log = logging.getLogger(__name__)


def guardian_command(program: Sequence[str], *, control: int | None = None) -> list[str]:
    """The command line that runs ``program`` behind a guardian of this process; see `processes.guardian`. Without
    ``control`` the program has the guardian's standard input."""
    asked = [] if control is None else ["--control", str(control)]
    return [sys.executable, "-I", "-S", str(GUARDIAN), "--parent", str(os.getpid()), *asked, "--", *program]


class GuardedProcess:
    """A program from its start to its end. It begins to run at once; no failure is raised.

    ``pid`` is 0 until `started` is done, which also is done when it cannot be started. `ended` is done with its exit
    once the program, all that it has started and its guardian are gone, and what it wrote was read: never cancelled,
    never an exception. When the event loop ends before, the program is killed.

    ``told`` gets each line that it writes, ``watched`` is called twice for what gets the bytes of a stream.
    """

    def __init__(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        told: Callable[[str], None],
        watched: Callable[[], Callable[[bytes], None]] = lambda: lambda data: None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0
        self.lines: deque[str] = deque(maxlen=TAIL)
        self.started: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[Exit] = loop.create_future()
        self._program, self._environment = list(program), dict(environment)
        self._told, self._watched = told, watched
        self._said: Exit | None = None
        self._guardian: asyncio.subprocess.Process | None = None
        self._control: asyncio.Transport | None = None
        self._early = b""
        """What is to be said to the guardian once it can be."""
        self._life = loop.create_task(self._live(), name=f"process of {Path(program[0]).name}")

    @property
    def guardian(self) -> int:
        """The process id of the guardian, 0 while there is none."""
        return self._guardian.pid if self._guardian is not None else 0

    def terminate(self) -> None:
        """Ask the program and its process group to end."""
        self._send(b"T")

    def kill(self) -> None:
        """Kill the program and all that it has started."""
        self._send(b"K")

    async def end(self, grace: float) -> None:
        """End it: ask, and kill after ``grace`` seconds; returns when `ended` is done. Safe to be cancelled."""
        self.terminate()
        await asyncio.wait({self.ended}, timeout=grace)
        if not self.ended.done():
            self.kill()
            await asyncio.wait({self.ended}, timeout=GUARDIAN_TIMEOUT)
        if not self.ended.done():
            self._kill_both()
            await asyncio.wait({self.ended})

    async def _live(self) -> None:
        ended = Exit("ended with the event loop of its owner")
        try:
            async with contextlib.AsyncExitStack() as stack:
                status = await self._guarded(stack)
            if self._said is None:
                # The kernel has killed the program; the rest of its group is left to us.
                self._kill_group()
                how = f"was killed by {signal_name(-status)}" if status < 0 else f"ended with status {status}"
                self._said = Exit(f"killed with its guardian, which {how}", signal="SIGKILL")
            ended = self._said
        except (OSError, ValueError) as error:
            ended = Exit(f"cannot be started: {getattr(error, 'strerror', '') or error}")
        finally:
            self._is_started()
            if not self.ended.done():
                self.ended.set_result(Exit(ended.reason, ended.code, ended.signal, tuple(self.lines)))

    async def _guarded(self, stack: contextlib.AsyncExitStack) -> int:
        """Run the guardian to its end; its exit status."""
        with contextlib.ExitStack() as given:
            reports = _Reports(self._reported)
            theirs = await self._open_control(reports, stack, given)
            outputs = [Output(self._tell, self.lines, self._watched()) for _ in range(2)]
            # Two pipes: what is written to one of them is not cut in two by the other.
            streams = [await _open_output(output, stack, given) for output in outputs]
            self._guardian = await asyncio.create_subprocess_exec(
                *guardian_command(self._program, control=theirs),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                env=self._environment,
                pass_fds=(theirs,),
                start_new_session=True,  # a terminal's Ctrl-C is for this process
            )
        try:
            status = await self._guardian.wait()
        except asyncio.CancelledError:
            # The event loop ends. Without its control the guardian kills everything and ends.
            if self._control is not None:
                self._control.abort()
            await self._guardian.wait()
            raise
        for output in outputs:
            output.read_rest()
        await asyncio.wait({reports.ended, *(output.ended for output in outputs)}, timeout=OUTPUT_TIMEOUT)
        return status

    async def _open_control(
        self, reports: _Reports, stack: contextlib.AsyncExitStack, given: contextlib.ExitStack
    ) -> int:
        """Connect ``reports``; the end that is the guardian's."""
        ours, theirs = socket.socketpair()
        given.callback(theirs.close)
        try:
            self._control, _ = await asyncio.get_running_loop().create_unix_connection(lambda: reports, sock=ours)
        except BaseException:
            ours.close()
            raise
        stack.callback(self._control.abort)
        self._control.write(self._early)
        return theirs.fileno()

    def _reported(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "pid":
            self.pid = int(rest)
            self._is_started()
        elif word == "failed":
            number, _, text = rest.partition(" ")
            self._said = Exit(f"{self._program[0]} cannot be run: {text or f'error {number}'}")
        elif self._said is None and word == "exit":
            self._said = Exit(f"exited with status {rest}", code=int(rest))
        elif self._said is None and word == "signal":
            name = signal_name(int(rest))
            self._said = Exit(f"killed by {name}", signal=name)

    def _tell(self, line: str) -> None:
        try:
            self._told(line)
        except Exception:
            log.exception("who gets the lines of %s failed", self._program[0])

    def _is_started(self) -> None:
        if not self.started.done():
            self.started.set_result(None)

    def _send(self, word: bytes) -> None:
        if self._control is None:
            self._early += word
        elif not self._control.is_closing():
            self._control.write(word)

    def _kill_both(self) -> None:
        """Kill without the guardian's help: it is stopped, or does not get at what it is to kill."""
        log.error("the guardian of %s (pid %d) does not answer and is killed", self._program[0], self.pid)
        self._kill_group()
        if self._guardian is not None:
            with contextlib.suppress(ProcessLookupError):
                self._guardian.kill()

    def _kill_group(self) -> None:
        if self.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)


class _Reports(asyncio.Protocol):
    """What the guardian writes, by line."""

    def __init__(self, reported: Callable[[str], None]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reported = reported
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._reported(line.decode(errors="replace"))

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)


async def _open_output(output: Output, stack: contextlib.AsyncExitStack, given: contextlib.ExitStack) -> int:
    """Have ``output`` read a new pipe; the end to write to."""
    read, write = os.pipe()
    given.callback(os.close, write)
    file = os.fdopen(read, "rb", 0)
    try:
        await asyncio.get_running_loop().connect_read_pipe(lambda: output, file)
    except BaseException:
        file.close()
        raise
    stack.callback(output.close)
    return write


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
