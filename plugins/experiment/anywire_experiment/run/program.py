"""A program of a cell as a process: it is not spoken to, but listened to or asked until it is ready."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import psutil

from anywire_experiment.plan.companions import Companion
from anywire_experiment.plan.programs import Program, ReadyAt
from anywire_experiment.record.masking import redacted
from anywire_experiment.run.launch import PROGRAM
from anywire_experiment.run.managed import Died, Managed
from anywire_experiment.run.readiness import answers

_LONGEST_LINE = 64 * 1024
_LARGEST_LOG = 16 * 1024 * 1024
_LAST_OUTPUT = 1.0
"""Seconds after its end in which what it wrote last is taken in."""
_READY = "ready"


Places = Mapping[str, Mapping[str, str]]
"""The host and ports of each program of a cell, by its name."""


class ProgramProcess(Managed):
    """Started with `begin`; what it writes goes to its log, of which the first 16 MiB are kept."""

    KIND: ClassVar[str] = "the "
    ERRORS_TO_LOG: ClassVar[bool] = False

    def __init__(self, name: str, program: Program, places: Places, cpus: Sequence[int], log: Path, died: Died) -> None:
        self._program, self._places, self._path = program, places, log
        self._expression: re.Pattern[bytes] | None = None
        self._family: set[psutil.Process] = set()
        """Everything that it started, as far as it was seen."""
        super().__init__(name, (), cpus, log, died)

    async def begin(self, folder: Path) -> None:
        """Start it in ``folder``, and return when it is ready. Raises `CellFailed`."""
        made = self._prepared(folder)
        self._arguments = [PROGRAM, *made.command]
        self.environment = {"PATH": made.path(), **made.environment}
        if made.ready and isinstance(made.ready, str):
            self._expression = re.compile(made.ready.encode())
        await self.start()
        if self._expression is not None:
            await self.hear(_READY)
        elif isinstance(made.ready, ReadyAt):
            await answers(made.ready.url)
        self.family()

    def told(self) -> bytes:
        """Its command, files and variables as the record keeps them, as JSON."""
        made = self._written({"folder": "{folder}", "python": "{python}"})
        tree = {"command": list(made.command), "files": made.files, "environment": made.environment}
        return redacted(msgspec.json.format(msgspec.json.encode(tree), indent=2).decode()).encode() + b"\n"

    def _prepared(self, folder: Path) -> Program:
        """It with all that stood in braces, its files written."""
        made = self._written({"folder": str(folder.resolve()), "python": sys.executable})
        folder.mkdir(mode=0o700)
        for name, text in made.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return made

    def _written(self, values: Mapping[str, str]) -> Program:
        return self._program.written({**self._places[self.name], **values}, lambda name, what: self._places[name][what])

    def family(self) -> list[psutil.Process]:
        """It and everything below it. What was seen once is kept: it may leave the tree and live on."""
        self._family.update(super().family())
        return [each for each in self._family if each.is_running()]

    async def _read(self, output: asyncio.StreamReader, heard: asyncio.Queue[dict[str, Any]]) -> None:
        """Until it ends, whoever else still has its output."""
        reading = asyncio.create_task(self._listen(output, heard))
        await self._exited()
        # What it started is in its session, or was seen before it left that, and ends with it.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for each in self._family:
            with suppress(psutil.Error):
                each.kill()
        self._family.clear()
        await asyncio.wait((reading,), timeout=_LAST_OUTPUT)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    async def _exited(self) -> None:
        if sys.platform != "linux":
            assert self._process is not None
            await self._process.wait()
            return
        # The event loop's own wait may wait for the end of the output, which a child of the program can hold.
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _listen(self, output: asyncio.StreamReader, heard: asyncio.Queue[dict[str, Any]]) -> None:
        room, line = _LARGEST_LOG, b""
        with self._path.open("ab") as log:
            while block := await output.read(2**16):
                log.write(block[:room])
                log.flush()
                room -= min(len(block), room)
                if self._expression is None:
                    continue
                *lines, line = (line + block).split(b"\n")
                line = line[-_LONGEST_LINE:]
                if any(map(self._expression.search, lines)):
                    self._expression = None
                    heard.put_nowait({"event": _READY})


class CompanionProcess(ProgramProcess):
    """A companion: as the plan names it."""

    KIND: ClassVar[str] = "the companion "

    def __init__(
        self, name: str, companion: Companion, places: Places, cpus: Sequence[int], log: Path, died: Died
    ) -> None:
        super().__init__(name, companion, places, cpus, log, died)
        self.use.shared = companion.shared
