"""A server on stdin and stdout as a process behind a guardian, with nothing left of it at its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from anywire.this_system import ELSEWHERE, IS_POSIX
from anywire_engine_models.host.server import Exit, StartFailed
from anywire_engine_models.processes.failures import no_program
from anywire_engine_models.processes.guarded import guardian_command, signal_name
from anywire_engine_models.processes.output import TAIL, Output

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Bytes of one message of a server, which is one line."""
PIECE = 64 * 1024
OUTPUT_TIMEOUT = 1.0
"""Seconds after the end of a program in which the rest of what it wrote is read."""
KILL_TIMEOUT = 3.0
"""Seconds that a guardian has for killing, until it is killed itself."""


class Child:
    """One life of a program. ``pid`` is the program's. `exited` is done when it, all that it has started and its
    guardian are gone, and what it wrote on stderr was read: never cancelled, never an exception."""

    def __init__(
        self, guardian: Process, control: socket.socket, messages: _Messages, output: Output, lines: deque[str]
    ) -> None:
        assert guardian.stdin is not None
        loop = asyncio.get_running_loop()
        self.pid = 0
        self.stdin, self.stdout = guardian.stdin, messages.reader
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self._started: asyncio.Future[None] = loop.create_future()
        self._guardian, self._control, self._messages = guardian, control, messages
        self._output, self._lines = output, lines
        self._said: Exit | None = None
        self._rest: asyncio.Task[None] | None = None
        self._reader = loop.create_task(self._read_control(), name=f"guardian {guardian.pid} says")
        self._waiter = loop.create_task(self._wait(), name=f"guardian {guardian.pid} ends")

    @classmethod
    async def spawn(
        cls, command: Sequence[str], environment: Mapping[str, str], cwd: Path | None, told: Callable[[str], None]
    ) -> Child:
        """Start it; ``told`` gets the lines that it writes on stderr. Raises `StartFailed` when there is no such
        program or folder. Cancelled, it leaves nothing."""
        program = _found(command[0], environment.get("PATH"), cwd)
        child = await cls._begun([program, *command[1:]], environment, cwd, told)
        try:
            either: set[asyncio.Future[Any]] = {child._started, child.exited}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            child._say(b"K")
            await certainly(child.stop(0.0))
            raise
        return child

    async def stop(self, grace: float) -> None:
        """End it: its input is closed, after ``grace`` seconds it gets SIGTERM, after as many again it is killed with
        all that it has started. Returns when it is gone; idempotent, and may be cancelled and called again."""
        self.stdin.close()
        if self._rest is None:
            self._rest = asyncio.create_task(self._read_rest(), name=f"rest of {self.pid}")
        for word in (b"T", b"K"):
            await asyncio.wait({self.exited}, timeout=grace)
            if self.exited.done():
                return
            self._say(word)
        await asyncio.wait({self.exited}, timeout=KILL_TIMEOUT)
        if not self.exited.done():
            self._kill()
            await asyncio.wait({self.exited})

    async def _read_rest(self) -> None:
        """Of what it writes on stdout when nobody wants it any more: while a pipe is full, its end is not seen, and
        with it not that of the program."""
        while await self.stdout.read(PIECE):
            pass

    def wrote(self, line: bytes) -> None:
        """It wrote on stdout what is no message: a line for a person."""
        self._output.data_received(line.rstrip(b"\n") + b"\n")

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._control.send(word)

    def _kill(self) -> None:
        """Without the guardian's help: it is stopped, or does not get at what it is to kill. Closing its control makes
        one that is well do the same."""
        if self.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._guardian.kill()

    @classmethod
    async def _begun(
        cls, command: Sequence[str], environment: Mapping[str, str], cwd: Path | None, told: Callable[[str], None]
    ) -> Child:
        if not IS_POSIX:
            raise StartFailed(Exit(f"a server as a process needs Linux or macOS: {ELSEWHERE}"))
        lines: deque[str] = deque(maxlen=TAIL)
        output, messages = Output(told, lines), _Messages()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        async with contextlib.AsyncExitStack() as failed:
            failed.callback(ours.close)
            failed.callback(output.close)
            failed.callback(messages.close)
            with contextlib.ExitStack() as given:
                given.callback(theirs.close)
                try:
                    guardian = await asyncio.create_subprocess_exec(
                        *guardian_command(command, control=theirs.fileno()),
                        stdin=PIPE,
                        stdout=await _opened(messages, given),
                        stderr=await _opened(output, given),
                        env=dict(environment),
                        cwd=cwd,
                        pass_fds=(theirs.fileno(),),
                        start_new_session=True,  # a terminal's Ctrl-C is for this process
                    )
                except OSError as error:
                    raise StartFailed(Exit(f"it cannot be started: {error.strerror or error}")) from error
            failed.pop_all()
        return cls(guardian, ours, messages, output, lines)

    async def _read_control(self) -> None:
        """What the guardian says, a line each: see `anywire_engine_models.processes.guardian`."""
        loop, rest = asyncio.get_running_loop(), b""
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._control, 4096):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    self._reported(line.decode(errors="replace"))

    def _reported(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "pid":
            self.pid = int(rest)
            if not self._started.done():
                self._started.set_result(None)
        elif word == "failed":
            number, _, text = rest.partition(" ")
            self._said = Exit(f"it cannot be started: {text or f'error {number}'}")
        elif self._said is None and word == "exit":
            self._said = Exit(f"exited with status {rest}", code=int(rest))
        elif self._said is None and word == "signal":
            name = signal_name(int(rest))
            self._said = Exit(f"killed by {name}", signal=name)

    async def _wait(self) -> None:
        ending = asyncio.ensure_future(self._guardian.wait())
        await asyncio.wait({ending, self._reader}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({ending}, timeout=OUTPUT_TIMEOUT)
        if not ending.done():
            # Its control is closed, so the guardian is gone: but asyncio tells of its end once its input is closed, and
            # a process that has escaped a killed guardian may hold that.
            with contextlib.suppress(AttributeError):  # it is closed already
                self.stdin.transport.abort()
        status = await ending
        await asyncio.wait({self._reader}, timeout=OUTPUT_TIMEOUT)
        self._reader.cancel()
        self._output.read_rest()
        await asyncio.wait({self._output.ended, self._messages.ended}, timeout=OUTPUT_TIMEOUT)
        self._messages.close()
        self._output.close()
        self._control.close()
        self.stdin.close()
        if self._said is None and self.pid:
            # The guardian was killed, and the kernel has killed the program; the rest of its group is left to us.
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            self._said = Exit(f"killed with its guardian (status {status})", signal="SIGKILL")
        said = self._said or Exit(f"its guardian ended with status {status}", code=status)
        self.exited.set_result(Exit(said.reason, said.code, said.signal, tuple(self._lines)))


class _Messages(asyncio.StreamReaderProtocol):
    """Its stdout; `ended` is done at its end. What was read can still be taken from ``reader`` then."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(MAX_MESSAGE_BYTES)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pipe: asyncio.BaseTransport | None = None
        super().__init__(self.reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._pipe = transport
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()


async def _opened(protocol: asyncio.BaseProtocol, given: contextlib.ExitStack) -> int:
    """Have ``protocol`` read a new pipe; the end to write to, which ``given`` closes."""
    read, write = os.pipe()
    given.callback(os.close, write)
    file = os.fdopen(read, "rb", 0)
    try:
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
    except BaseException:
        file.close()
        raise
    return write


def _found(program: str, path: str | None, cwd: Path | None) -> str:
    """The whole path of a program. Raises `StartFailed` when it, or the folder that it is to run in, is not there."""
    if cwd is not None and not cwd.is_dir():
        raise StartFailed(Exit(f"the folder {cwd} (cwd) is not there"))
    found = shutil.which(str((cwd or Path()) / program) if os.sep in program else program, path=path)
    if found is None:
        raise StartFailed(Exit(no_program(program)))
    return str(Path(found).absolute())


async def certainly(awaited: Coroutine[Any, Any, None]) -> None:
    """Await to its end, whoever cancels this task meanwhile; its own cancellation goes on afterwards."""
    task = asyncio.ensure_future(awaited)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
