"""What is measured in a cell: a system, whoever made it."""

from __future__ import annotations

import asyncio
import random
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from anywire.events import TaskEnded
from anywire_experiment.load.spec import ClientPlane
from anywire_experiment.network import Hosts
from anywire_experiment.plan.arms import Arm
from anywire_experiment.plan.programs import ports_named
from anywire_experiment.plan.systems import SYSTEM, programs_of
from anywire_experiment.run.managed import Died, Managed
from anywire_experiment.run.program import CompanionProcess
from anywire_experiment.run.recorder import Change

LOOPBACK = "127.0.0.1"
_PORTS = range(20_000, 32_000)
"""Below the ports that outgoing connections take."""
GRACE = 5.0
"""Seconds a process gets beyond its own grace to end."""


class Subject(ABC):
    """A system under test with its companions, started afresh; after `stop` no process of theirs is left."""

    def __init__(
        self, arm: Arm, folder: Path, private: Path, cpus: Sequence[int], hosts: Hosts | None, died: Died
    ) -> None:
        self.arm, self._folder, self._private = arm, folder, private
        self.url = ""
        """Of its OpenAI API, once it has started."""
        self.trouble = ""
        """Why it is not ready yet, as far as that is known."""
        self._places = _places(arm, hosts.orchestrator.address if hosts else LOOPBACK)
        self.companions: dict[str, CompanionProcess] = {}
        for name, each in arm.companions.items():
            log = folder / "logs" / f"{name}.log"
            self.companions[name] = CompanionProcess(name, each, self._places, cpus, log, died)
            self.companions[name].prefix = hosts.orchestrator.command() if hosts else []

    @property
    @abstractmethod
    def own(self) -> Mapping[str, Managed]:
        """Its processes but the companions."""

    @property
    def processes(self) -> dict[str, Managed]:
        return {**self.own, **self.companions}

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request to it has."""
        return {}

    @property
    def wire_pid(self) -> int:
        """A process in the network whose bytes are counted; 0 for this one."""
        return 0

    async def start(self) -> None:
        """Returns when all of it is ready and a request was answered. Raises `CellFailed`."""
        for name, companion in self.companions.items():
            (self._folder / f"companion-{name}.json").write_bytes(companion.told())
            await companion.begin(self._private / f"companion-{name}")
        await self._start()

    @abstractmethod
    async def _start(self) -> None:
        """`start` it, when its companions are ready."""

    async def available(self) -> None:  # noqa: B027 - a system of others has none to tell
        """Return when every agent takes tasks, as the orchestrator tells; `trouble` is why not, until then. Of a system
        that is not Anywire's nothing is known. Raises `CellFailed`."""

    async def counters(self) -> Mapping[str, float]:
        """What it has counted so far. Raises `CellFailed`."""
        return {}

    def client_plane(self) -> ClientPlane:
        """How clients reach it without HTTP; only Anywire has that."""
        raise NotImplementedError

    def recorded(self) -> tuple[list[TaskEnded], list[Change], str]:
        """What it told of tasks and agents, and what of that is missing; to be asked after `stop`."""
        return [], [], ""

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop(self._grace) for each in self.own.values()))
        # They are needed until the last of the others is gone.
        await asyncio.gather(*(each.stop(self._grace) for each in self.companions.values()))

    @property
    def _grace(self) -> float:
        """Seconds that each process gets to end."""
        return 2 * GRACE


def _places(arm: Arm, host: str) -> dict[str, dict[str, str]]:
    """The host and a free port for each name of one, by program."""
    programs = dict(programs_of(arm.companions, arm.foreign.program if arm.foreign else None))
    if arm.foreign is not None:
        named = ports_named([arm.foreign.base_url, dict(arm.foreign.headers)])
    else:
        named = ports_named(arm.tree)
    for each in programs.values():
        named |= ports_named(list(each.texts()))
    places: dict[str, dict[str, str]] = {}
    used: set[int] = set()
    for name, program in programs.items():
        asked = program.ports() | {what for of, what in named if of == name and what != "host"}
        if name == SYSTEM and arm.foreign is not None:
            asked |= arm.foreign.ports()
        places[name] = {"host": host}
        for what in sorted(asked):
            port = free_port(used)
            used.add(port)
            places[name][what] = str(port)
    return places


def free_port(used: Collection[int] = ()) -> int:
    """A TCP port on which nothing listens on this machine, and which is not among ``used``."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in used:
            return port
