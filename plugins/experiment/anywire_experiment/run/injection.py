"""How a fault is inflicted on the system of a cell, and undone."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from anywire.plugins import Plugins
from anywire_experiment.faults.catalogue import CLOCK_STEP, LOSS, Fault
from anywire_experiment.network import Hosts, unavailable
from anywire_experiment.run.managed import CellFailed, Managed
from anywire_experiment.run.system import System

SERVICES = ("audit", "background")
"""Those whose state is on the disk that gets full."""
ASKS_A_SERVER = "openai"
"""The engine whose server the stand-in is."""
_DISK = "4m"
_FILLER = "filler"
_PIECE = 4096


def why_not(fault: Fault, engine: str, *, one_process: bool) -> str:
    """Why there is no such cell here with the agents' ``engine``; empty when there is. ``one_process``: the transport
    stays inside of a process."""
    if fault.crosses and one_process:
        return "orchestrator and agents are one process over this transport"
    match fault.needs:
        case "stand_in" if engine != ASKS_A_SERVER:
            return f"the engine {engine} asks no server that a stand-in could be"
        case "network":
            return unavailable()
        case "clock" if libfaketime() is None:
            return "libfaketime is not installed (Debian package faketime)"
        case "disk":
            return _no_disk()
    return ""


def _no_disk() -> str:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        return "a file system of its own needs root, Linux and `unshare` (Debian package util-linux)"
    if missing := [each for each in SERVICES if each not in Plugins().names("services")]:
        return f"the service {missing[0]} is not installed (anywire-service-{missing[0]})"
    return ""


def libfaketime() -> Path | None:
    """The library for programs with threads, where Debian installs it."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def state_folder(private: Path) -> Path:
    """Where the services of the orchestrator keep their state, in a cell that fills the disk."""
    return private / "state"


class Server(Protocol):
    """The server that an agent's engine asks."""

    async def fail(self, how: str) -> None:
        """Fail as a fault of that name from now on."""

    async def heal(self) -> None:
        """Answer as it should again."""


class Injection:
    """Inflicts ``fault`` on ``system``. Make it before the system starts; ``struck`` is the agent that is met,
    ``server`` what it asks, and ``private`` a folder that exists."""

    def __init__(
        self, fault: Fault, system: System, hosts: Hosts | None, server: Server | None, private: Path, struck: str
    ) -> None:
        self._fault, self._system, self._hosts, self._server = fault, system, hosts, server
        self._struck = struck
        self.lost_frames = 0
        """By the network, when the fault was undone."""
        self._clocks: dict[Path, str] = {}
        """The files that tell processes the time, each with what is told while the fault lasts."""
        self._state = state_folder(private)
        if fault.needs == "clock":
            self._under_false_clocks(private)
        elif fault.needs == "disk":
            self._on_a_small_disk()

    async def strike(self) -> None:
        match self._fault.needs:
            case "stand_in":
                assert self._server is not None
                await self._server.fail(self._fault.name)
            case "signals" if self._fault.name == "agent-killed":
                self._kill_agent()
            case "signals":
                self._paused().signal(signal.SIGSTOP)
            case "network":
                await self._strike_network()
            case "clock":
                for file, told in self._clocks.items():
                    file.write_text(told)
            case "disk":
                self._fill()

    async def undo(self) -> None:
        match self._fault.needs:
            case "stand_in":
                assert self._server is not None
                await self._server.heal()
            case "signals" if self._fault.name == "agent-killed":
                await self._start_agent()
            case "signals":
                self._paused().signal(signal.SIGCONT)
            case "network":
                assert self._hosts is not None
                self.lost_frames = await self._hosts.lost()
                await self._hosts.restore()
                if self._fault.name == "half-open-link":
                    await self._start_agent()
            case "clock":
                for file in self._clocks:
                    file.write_text(_RIGHT)
            case "disk":
                self._filler().unlink()

    # Processes

    def _kill_agent(self) -> None:
        agent = self._system.agents[self._struck]
        agent.measure()
        agent.expected_end = True
        agent.signal(signal.SIGKILL)

    async def _start_agent(self) -> None:
        await self._system.agents[self._struck].kill()
        await self._system.start_agent(self._struck)

    def _paused(self) -> Managed:
        return self._system.orchestrator if self._fault.name == "hub-paused" else self._system.agents[self._struck]

    # The network

    async def _strike_network(self) -> None:
        hosts = self._hosts
        assert hosts is not None
        match self._fault.name:
            case "partition-one-way-to-hub":
                await hosts.cut(hosts.orchestrator)
            case "partition-one-way-to-agent":
                await hosts.cut(hosts.agents)
            case "fragments-dropped":
                await hosts.lose(LOSS)
            case "half-open-link":
                await hosts.cut()
                self._kill_agent()
            case _:
                await hosts.cut()

    # Clocks

    def _under_false_clocks(self, private: Path) -> None:
        library = libfaketime()
        assert library is not None
        struck = self._system.agents.get(self._struck)
        processes = [(self._system.orchestrator, -CLOCK_STEP), *([(struck, CLOCK_STEP)] if struck else [])]
        for process, step in processes:
            file = private / f"clock-{process.name}"
            file.write_text(_RIGHT)
            self._clocks[file] = f"{step:+d}"
            process.environment = {**process.environment, **_false_clock(library, file)}

    # The disk

    def _on_a_small_disk(self) -> None:
        """Give the orchestrator a file system for its state, in a mount namespace of its own: nobody else sees it, and
        it is gone with the process."""
        self._state.mkdir(mode=0o700)
        orchestrator = self._system.orchestrator
        mount = f'mount -t tmpfs -o size={_DISK},mode=0700 anywire-state "$0" && exec "$@"'
        orchestrator.prefix = [*orchestrator.prefix, "unshare", "--mount", "sh", "-c", mount, str(self._state)]

    def _filler(self) -> Path:
        """As this process reaches it: through the orchestrator's view of the file systems."""
        root = Path(f"/proc/{self._system.orchestrator.pid}/root")
        return root / self._state.relative_to("/") / _FILLER

    def _fill(self) -> None:
        with self._filler().open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(_PIECE))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise CellFailed(f"the disk could not be filled: {error.strerror}") from error


_RIGHT = "+0"


def _false_clock(library: Path, file: Path) -> Mapping[str, str]:
    """The environment of a process that takes the time of day from ``file``; CLOCK_MONOTONIC stays true."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
