"""One life of the llama.cpp child process, as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Mapping, Sequence

LOG_LINES = 40  # kept
LINES_SHOWN = 8
LINE_LENGTH = 1000
STOP_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_LISTENING = re.compile(r"listening on (https?://\S+:\d{1,5})(?=\s|$)")

log = logging.getLogger("anywire_engine_llama.server")


class Child:
    """A started process. ``address`` is done when it said where it listens, ``exited`` (with the exit status) when
    it has ended and all it wrote was read. ``lines`` are the last it wrote."""

    def __init__(self, process: Process) -> None:
        self.pid = process.pid
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self.address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process = process
        # Two pipes: what is written to one of them is not cut in two by the other.
        self._readers = {
            asyncio.create_task(self._read(stream), name=f"llama {self.pid} log")
            for stream in (process.stdout, process.stderr)
            if stream is not None
        }
        self.exited = asyncio.create_task(self._wait(), name=f"llama {self.pid} exit")

    @classmethod
    async def spawn(cls, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start it in a session of its own, so that a terminal's Ctrl-C reaches the agent and not this."""
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True
        )
        return cls(process)

    def ending(self) -> str:
        """How it ended, for a person, with the last lines it wrote."""
        status = self._process.returncode
        if status is None:
            how = "is still running"
        elif status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        else:
            how = f"exited with status {status}"
        return f"llama.cpp (pid {self.pid}) {how}{self.last_lines()}"

    def last_lines(self) -> str:
        """The last lines it wrote, as the end of a sentence; empty when it wrote nothing."""
        return "; it wrote last:\n  " + "\n  ".join(list(self.lines)[-LINES_SHOWN:]) if self.lines else ""

    async def stop(self) -> None:
        """End it, gently first; returns when it is gone."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            done, _ = await asyncio.wait({self.exited}, timeout=STOP_GRACE)
            if not done:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        await asyncio.wait({self.exited})

    async def _wait(self) -> int:
        status = await self._process.wait()
        await asyncio.wait(self._readers, timeout=1.0)  # a grandchild may hold the pipes
        for reader in self._readers:
            reader.cancel()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.address.cancel()
        return status

    async def _read(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stream.read(65536):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                self._take(line)
            rest = rest[-LINE_LENGTH:]
        if rest:
            self._take(rest)

    def _take(self, line: bytes) -> None:
        text = line[:LINE_LENGTH].decode(errors="replace").rstrip()
        if not text:
            return
        self.lines.append(text)
        log.debug("%d: %s", self.pid, text)
        if not self.address.done() and (found := _LISTENING.search(text)):
            self.address.set_result(found[1])
