"""What tests of processes share: models that are small servers, a watcher that remembers, what is left afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from anywire.testing.patience import FACTOR, polled
from anywire.testing.recorder import Recorder
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.processes.server_command import ServerCommand

SMALL_SERVER = Path(__file__).with_name("small_server.py")
MARK = "SERVERS_OF_ONE_TEST"
"""An environment variable that every process of a test has, and no other."""


def small(*options: str, command: dict[str, Any] | None = None, **hosted: Any) -> HostedModel:
    """A model whose server is a small one with these options."""
    arguments = (sys.executable, "-I", "-S", str(SMALL_SERVER), "port={port}", *options)
    settings: dict[str, Any] = {"start_timeout": 30.0 * FACTOR, "stop_grace": 10.0 * FACTOR} | hosted
    return HostedModel("local:small:1", launch=ServerCommand(**{"arguments": arguments} | (command or {})), **settings)


class Watching:
    """A `Watcher` that remembers."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.parts: list[float] = []
        self.lines: list[str] = []
        self._told = Recorder()

    def spawned(self, pid: int) -> None:
        self.pids.append(pid)
        self._told.add("spawned")

    def progress(self, part: float) -> None:
        self.parts.append(part)
        self._told.add("progress")

    def line(self, text: str) -> None:
        self.lines.append(text)
        self._told.add("line")

    async def is_spawned(self) -> int:
        await self._told.until(lambda: self.pids, "it was spawned")
        return self.pids[-1]

    async def says(self, beginning: str) -> str:
        """The rest of the first line that begins so."""

        def found() -> list[str]:
            return [line.removeprefix(beginning) for line in self.lines if line.startswith(beginning)]

        await self._told.until(found, f"it writes {beginning!r}")
        return found()[0]


def marked(mark: str) -> list[psutil.Process]:
    """The processes with that `MARK`, this one apart; zombies are not seen."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


async def none_left(mark: str) -> None:
    await polled(lambda: not marked(mark), "no process is left", seen=lambda: f": {marked(mark)}")


def is_gone(pid: int) -> bool:
    """Whether that process has ended; somebody else may still have to take it in."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def nothing_left() -> Iterator[None]:
    """Neither children (zombies too) nor open files of this process are left at its end."""
    before = _held()
    yield
    assert _held() == before


def _held() -> dict[str, object]:
    me = psutil.Process()
    return {
        "children": {child.pid for child in me.children(recursive=True)},
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }
