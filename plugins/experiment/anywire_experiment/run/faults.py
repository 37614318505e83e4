"""The faults of a cell: inflicted at their times, undone when they have lasted, and noted as events."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from anywire.errors import ConfigError
from anywire_experiment.network import Hosts
from anywire_experiment.plan.arms import Arm, config_of
from anywire_experiment.plan.fault_kinds import catalogued
from anywire_experiment.plan.workload import Fault
from anywire_experiment.record.cells import Event, What
from anywire_experiment.run import recorder
from anywire_experiment.run.injection import Injection, why_not
from anywire_experiment.run.managed import CellFailed, Died, Managed
from anywire_experiment.run.stand_ins import StandIns
from anywire_experiment.run.subject import Subject
from anywire_experiment.run.system import System

OF_ALL = (
    *("hub-paused", "disk-full", "partition", "partition-one-way-to-hub", "partition-one-way-to-agent"),
    "fragments-dropped",
)
"""Those that meet no agent in particular."""


def check_here(arms: Sequence[Arm]) -> None:
    """Raises `ConfigError` for a fault that cannot be inflicted on this machine."""
    for arm in arms:
        for name, each in arm.faults.items():
            if why := why_not(catalogued(each.kind), config_of(arm).engine.name, one_process=False):
                raise ConfigError(
                    f"workload {name!r} has the fault {each.kind!r}, which cannot be inflicted here: {why}"
                )
            if each.kind == "disk-full" and not config_of(arm).services:
                raise ConfigError(
                    f"workload {name!r} fills the disk with the state of services, and the arm {arm.name!r} has none: "
                    "name `audit` or `background` in `services`"
                )


class CellFaults:
    """Those of a cell of ``arm``, none where its system is not Anywire's. Make it before ``system`` starts: some take
    preparation. ``notices``: the
    orchestrator tells attempts that fail, in all arms of a plan in which any has a fault."""

    def __init__(
        self,
        arm: Arm,
        seed: int,
        system: Subject,
        hosts: Hosts | None,
        private: Path,
        log: Path,
        cpus: Sequence[int],
        died: Died,
        *,
        notices: bool,
    ) -> None:
        self._faults, self._seed = arm.faults, seed
        self._servers: StandIns | None = None
        self._injections: dict[str, tuple[str, Injection]] = {}
        """The agent that is met, by workload, empty for none in particular; and how."""
        if not isinstance(system, System):
            return
        if arm.stand_in is not None:
            self._servers = StandIns(arm.stand_in, system, cpus, log, died)
        if self._servers is not None and hosts is not None:
            self._servers.prefix = hosts.agents.command()
        if notices:
            orchestrator = system.orchestrator
            orchestrator.environment = {**orchestrator.environment, recorder.NOTICES: "1"}
        # Two that prepare the same process in the same way prepare it once.
        prepared: dict[tuple[str, str], Injection] = {}
        for workload, fault in arm.faults.items():
            is_of_all = fault.kind in OF_ALL
            struck = min(system.agents, default="") if is_of_all else self._drawn(workload, system.agents)
            key = (fault.kind, struck)
            if key not in prepared:
                server = self._servers.behind(struck) if self._servers is not None else None
                prepared[key] = Injection(catalogued(fault.kind), system, hosts, server, private.absolute(), struck)
            self._injections[workload] = "" if is_of_all else struck, prepared[key]

    @property
    def processes(self) -> Mapping[str, Managed]:
        """The servers behind the agents."""
        return {self._servers.name: self._servers} if self._servers is not None else {}

    async def begin(self) -> None:
        """Start the servers, before the system. Raises `CellFailed`."""
        if self._servers is not None:
            await self._servers.begin()

    async def stop(self, timeout: float) -> None:
        """End the servers, after the system."""
        if self._servers is not None:
            await self._servers.stop(timeout)

    def of(self, workload: str) -> Fault | None:
        return self._faults.get(workload)

    async def inflict(self, workload: str, began_ns: int, note: Callable[[Event], None]) -> None:
        """Do it at its time and undo it when it has lasted; which agent it meets is drawn from the seed. Raises
        `CellFailed`."""
        fault = self._faults[workload]
        met, injection = self._injections[workload]

        def happened(what: What, at_ns: int) -> None:
            note(Event(at_ns, what, met, fault.kind, workload))

        await _until(began_ns, fault.at)
        # From its beginning to its end: what it does may be felt before all of it is done, and until all is undone.
        at_ns = time.monotonic_ns()
        await injection.strike()
        happened("fault", at_ns)
        await _until(began_ns, fault.at + fault.lasts)
        await injection.undo()
        happened("mended", time.monotonic_ns())
        if catalogued(fault.kind).needs == "network" and not injection.lost_frames:
            raise CellFailed(f"{workload}: the network lost no frame: what this transport sends does not cross it")

    def _drawn(self, workload: str, agents: Collection[str]) -> str:
        names = sorted(agents)
        return random.Random(f"{self._seed}/fault of {workload}").choice(names) if names else ""


async def _until(began_ns: int, seconds: float) -> None:
    await asyncio.sleep(seconds - (time.monotonic_ns() - began_ns) / 1e9)
