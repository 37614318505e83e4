"""A server on stdin and stdout as a process of its own, with nothing left of it at its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from anywire_engine_models.host.server import Exit, StartFailed

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Bytes of one message of a server, which is one line."""
LINES_KEPT = 20
LINE_CHARS = 1000
PIPES = 1.0
"""Seconds after the end of a program in which the rest of what it wrote is read: a process that has left its group may
hold the pipe open."""
_GUARDIAN = Path(__file__).with_name("guardian.py")


class Child:
    """One life of a program. ``exited`` is done when it has ended and what it wrote on stderr was read; it is never
    cancelled. ``line`` is called with each line for a person."""

    def __init__(self, guarded: _Guarded, pid: int, line: Callable[[str], None]) -> None:
        process = guarded.process
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid, self.stdin, self.stdout = pid, process.stdin, process.stdout
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._guarded, self._line = guarded, line
        self._reader = asyncio.create_task(self._read(process.stderr), name=f"mcp {pid} log")
        self._waiter = asyncio.create_task(self._wait(), name=f"mcp {pid} exit")

    @classmethod
    async def spawn(
        cls, command: Sequence[str], environment: Mapping[str, str], cwd: Path | None, line: Callable[[str], None]
    ) -> Child:
        """Start it in a session of its own. Raises `StartFailed` when there is no such program or folder. Cancelled,
        it leaves nothing."""
        guarded = await _Guarded.begin(command, environment, cwd)
        try:
            told = await guarded.told()
        except BaseException:
            guarded.abandon()
            raise
        if not told.isdigit():
            guarded.abandon()
            reason = told.removeprefix("!") or "it ended at once"
            raise StartFailed(Exit(f"{command[0]} cannot be started: {reason}; is the program installed here?"))
        return cls(guarded, int(told), line)

    async def stop(self, grace: float) -> None:
        """End it: its input is closed, after ``grace`` seconds it gets SIGTERM, after as many again SIGKILL, with all
        of its group. Returns when it is gone; idempotent, and may be cancelled and called again."""
        self.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            await asyncio.wait({self.exited}, timeout=grace)
            if self.exited.done():
                return
            self._signal(number)
        self._guarded.lifeline.close()
        await asyncio.wait({self.exited})

    def wrote(self, line: bytes) -> None:
        """It wrote a line that is for a person."""
        text = line[: LINE_CHARS * 4].decode(errors="replace").rstrip()[:LINE_CHARS]
        if text:
            self.lines.append(text)
            self._line(text)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _wait(self) -> None:
        code = await self._guarded.code
        self._signal(signal.SIGKILL)  # where the guardian itself was killed
        await asyncio.wait({self._reader}, timeout=PIPES)
        self._reader.cancel()
        self._guarded.abandon()
        lines = tuple(self.lines)
        if code < 0:
            name = signal.Signals(-code).name
            self.exited.set_result(Exit(f"killed by {name}", signal=name, lines=lines))
        else:
            self.exited.set_result(Exit(f"exited with status {code}", code=code, lines=lines))

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        rest = b""
        while stream is not None and (data := await stream.read(65536)):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                self.wrote(line)
            rest = rest[: LINE_CHARS * 4]
        self.wrote(rest)


class _Guarded(SubprocessStreamProtocol):
    """The guardian of a program, as asyncio's process. ``code`` is done when it has ended, whoever holds its pipes."""

    process: Process
    lifeline: socket.socket

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(limit=MAX_MESSAGE_BYTES, loop=loop)
        self.code: asyncio.Future[int] = loop.create_future()

    @classmethod
    async def begin(cls, command: Sequence[str], environment: Mapping[str, str], cwd: Path | None) -> _Guarded:
        loop = asyncio.get_running_loop()
        mine, its = socket.socketpair()
        mine.setblocking(False)
        try:
            transport, guarded = await loop.subprocess_exec(
                cls,
                *(sys.executable, "-I", "-S", str(_GUARDIAN), str(its.fileno())),
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=environment,
                cwd=cwd,
                pass_fds=(its.fileno(),),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            mine.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise StartFailed(Exit(f"{command[0]} cannot be started: {reason}")) from error
        except BaseException:
            mine.close()
            raise
        finally:
            its.close()
        guarded.lifeline = mine
        guarded.transport = transport
        guarded.process = Process(transport, guarded, loop)
        return guarded

    def process_exited(self) -> None:
        code = self.transport.get_returncode()
        if not self.code.done():
            self.code.set_result(code if code is not None else -signal.SIGKILL)
        super().process_exited()

    async def told(self) -> str:
        """The line that the guardian tells; empty when it has ended first."""
        loop, told = asyncio.get_running_loop(), b""
        while not told.endswith(b"\n"):
            try:
                data = await loop.sock_recv(self.lifeline, 1024)
            except OSError:
                break
            if not data:
                break
            told += data
        return told.decode(errors="replace").strip()

    def abandon(self) -> None:
        """Nobody needs it any more: it ends, with what it guards."""
        self.lifeline.close()
        self.transport.close()
