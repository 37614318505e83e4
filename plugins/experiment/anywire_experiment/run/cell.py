"""One cell carried out: the system started afresh, its workloads run, its samples joined, its folder written."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from anywire.errors import AnywireError
from anywire.identity import boot_id
from anywire_experiment.energy.meter import Meter
from anywire_experiment.load.spec import SIGN_OF_LIFE, LoadSpec
from anywire_experiment.network import Hosts, link, validated
from anywire_experiment.plan.arms import Arm, load_seed
from anywire_experiment.plan.faults import has_faults
from anywire_experiment.plan.orders import workload_order
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record.cells import LOAD, SAMPLES_FILE, Cell, Event, WorkloadRun, join_samples, write_cell
from anywire_experiment.record.masking import redact_logs, redacted
from anywire_experiment.run import recorder
from anywire_experiment.run.cores import placement
from anywire_experiment.run.faults import CellFaults
from anywire_experiment.run.foreign import Foreign
from anywire_experiment.run.managed import CellFailed, Managed
from anywire_experiment.run.subject import Subject
from anywire_experiment.run.system import System
from anywire_experiment.run.wire import WireCounter

T = TypeVar("T")
LINK = "link.json"
_LOAD_GRACE = 5.0
_NOTICE = 1.0
_SILENCE = 6 * SIGN_OF_LIFE
"""How long the load generator may say nothing while it works."""


class CellRun:
    """A cell under way, in a folder of its own. ``progress`` is told what it does just now."""

    def __init__(
        self,
        plan: Plan,
        arm: Arm,
        block: int,
        order: int,
        folder: Path,
        domain: int,
        progress: Callable[[str], None],
        meter: Meter | None = None,
    ) -> None:
        self._plan, self._arm, self._folder, self._domain = plan, arm, folder, domain
        self._progress, self._meter = progress, meter
        self._died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why, once a process of the system ended that should not."""
        self._workload = ""
        self.cell = Cell(
            block=block,
            arm=arm.name,
            levels=dict(arm.levels),
            order=order,
            workload_order=workload_order(plan, block),
            state="failed",
            reason="",
            started=_now(),
            started_ns=time.monotonic_ns(),
            ended="",
            ended_ns=0,
            boot_id=boot_id(),
            seed=load_seed(plan, block),
            cpus=placement(plan),
            workloads={},
            events=[],
            processes={},
            load_average_before=_load_average(),
            load_average_after=[],
            energy=meter.told() if meter else None,
        )

    async def run(self) -> Cell:
        """Whatever goes wrong with the system or the disk is the cell's reason; its folder then holds what there is."""
        private = self._folder / ".private"
        (self._folder / "logs").mkdir(parents=True)
        private.mkdir(mode=0o700)
        try:
            await self._carry_out(private)
            self.cell.state = "completed"
        except (AnywireError, OSError) as error:
            self.cell.reason = redacted(str(error)) or type(error).__name__
        finally:
            # It may hold secrets, of a run that is interrupted too.
            shutil.rmtree(private)
        if self.cell.state == "failed":
            # A disk that is full must at least hold the reason.
            (self._folder / SAMPLES_FILE).unlink(missing_ok=True)
        redact_logs(self._folder / "logs")
        self.cell.ended, self.cell.ended_ns = _now(), time.monotonic_ns()
        self.cell.load_average_after = _load_average()
        self.cell.events.sort(key=lambda event: event.at_ns)
        write_cell(self._folder, self.cell)
        return self.cell

    async def _carry_out(self, private: Path) -> None:
        if self._arm.network is None:
            await self._with_hosts(private, None)
            return
        self._progress("measuring the link")
        async with link(self._arm.network, seed=self.cell.seed) as hosts:
            measured = await validated(hosts)
            text = msgspec.json.format(msgspec.json.encode({"kind": hosts.kind, "measured": measured}), indent=2)
            (self._folder / LINK).write_bytes(text + b"\n")
            if measured.faults:
                raise CellFailed(f"the link is not as the plan says: {'; '.join(measured.faults)}")
            await self._with_hosts(private, hosts)

    async def _with_hosts(self, private: Path, hosts: Hosts | None) -> None:
        cpus = self.cell.cpus["system"]
        system = self._system(private, cpus, hosts)
        servers_log = self._folder / "logs" / "stand-in.log"
        notices = has_faults(self._plan)
        faults = CellFaults(
            self._arm, self.cell.seed, system, hosts, private, servers_log, cpus, self._on_death, notices=notices
        )
        self._faults = faults
        spec = private / "load.json"
        log = self._folder / "logs" / f"{LOAD}.log"
        load = Managed(LOAD, ["anywire_experiment.load", str(spec)], self.cell.cpus["load"], log, self._on_death)
        load.prefix = hosts.orchestrator.command() if hosts else []
        self.cell.processes = {name: each.use for name, each in {**self._all(system), LOAD: load}.items()}
        wire = WireCounter(hosts)
        self.cell.wire = wire.kind
        loaded = private / "loaded.parquet"
        try:
            # It imports beside the system, and reads its spec with the first command.
            await load.start()
            await faults.begin()
            await self._ready(system)
            spec.write_text(self._spec(system, loaded).model_dump_json())
            await self._undisturbed(load.hear("ready"))
            for name in self.cell.workload_order:
                self._workload = name
                await self._undisturbed(self._run_workload(name, system, load, hosts, wire))
                # It may hold a secret, of the client plane.
                spec.unlink(missing_ok=True)
            self._workload = ""
            load.expected_end = True
            load.measure()
            load.say('{"do":"finish"}')
            await load.hear("written")
            await load.ended(_LOAD_GRACE)
        finally:
            self._progress("stopping")
            stopping_ns = time.monotonic_ns()
            await asyncio.gather(load.stop(_LOAD_GRACE), system.stop())
            await faults.stop(_LOAD_GRACE)
            tasks, changes, missing = system.recorded()
            # Agents that leave because the cell is over are no event of it.
            self.cell.events += [self._placed(each) for each in changes if each.at_ns < stopping_ns]
        if missing:
            raise CellFailed(missing)
        try:
            join_samples([loaded], tasks, self._folder / SAMPLES_FILE, self._arm.transports[:1])
        except (ValueError, pa.ArrowException) as error:
            raise CellFailed(f"what the load generator wrote cannot be read: {error}") from error

    def _system(self, private: Path, cpus: Sequence[int], hosts: Hosts | None) -> Subject:
        arm, folder = self._arm, self._folder
        if arm.foreign is None:
            return System(arm, folder, private, cpus, self._domain, hosts, self._on_death)
        named = (arm.request.get("model"), *(each.model for each in self._plan.workloads.values()))
        model = str(next(filter(None, named), ""))
        return Foreign(arm, arm.foreign, model, folder, private, cpus, self._on_death)

    async def _ready(self, system: Subject) -> None:
        self._progress("starting")
        try:
            async with asyncio.timeout(self._plan.ready_timeout):
                await self._undisturbed(system.start())
        except TimeoutError as error:
            said = "; ".join(f"{name}: {each.last_lines()}" for name, each in system.processes.items())
            why = f" ({system.trouble})" if system.trouble else ""
            raise CellFailed(
                f"never ready: no answer within {self._plan.ready_timeout:g} s{why}; last lines: {said}"
            ) from error

    async def _run_workload(
        self, name: str, system: Subject, load: Managed, hosts: Hosts | None, wire: WireCounter
    ) -> None:
        inflicted = self._faults.of(name)
        run = self.cell.workloads[name] = WorkloadRun()
        processes = {**self._all(system), LOAD: load}
        await self._available(name, system)
        self._progress(f"{name}: warm-up")
        load.say(f'{{"do":"warm_up","workload":{json.dumps(name)}}}')
        told = await load.hear("warmed_up", silence=_SILENCE)
        run.warm_up_requests, run.steady = told["requests"], told["steady"]
        await self._available(name, system)
        used = {process: each.measure() for process, each in processes.items()}
        counted = await system.counters()
        carried = wire.count(system.wire_pid)
        spent = self._meter.read() if self._meter else {}
        self._progress(f"{name}: measuring")
        load.say(f'{{"do":"measure","workload":{json.dumps(name)}}}')
        run.began_ns = (await load.hear("began", silence=_SILENCE))["at_ns"]
        fault: asyncio.Task[None] | None = None
        if inflicted is not None:
            fault = asyncio.create_task(self._faults.inflict(name, run.began_ns, self.cell.events.append))
        try:
            told = await load.hear("ended", silence=_SILENCE)
            run.ended_ns, run.requests, run.failed = told["at_ns"], told["requests"], told["failed"]
            run.cpu_seconds = {process: each.measure() - used[process] for process, each in processes.items()}
            run.joules = self._meter.since(spent) if self._meter else {}
            total = wire.count(system.wire_pid)
            run.wire_bytes = total - carried if total is not None and carried is not None else None
            now = await system.counters()
            run.counters = {name: more for name in now if (more := now[name] - counted.get(name, 0))}
            if fault is not None and inflicted is not None and isinstance(system, System):
                if run.ended_ns - run.began_ns < inflicted.at * 1e9:
                    raise CellFailed(
                        f"{name} ended after {(run.ended_ns - run.began_ns) / 1e9:.2f} s, before its fault at "
                        f"{inflicted.at:g} s: let it last longer"
                    )
                self._progress(f"{name}: after the fault")
                await fault
                async with asyncio.timeout(self._plan.ready_timeout):
                    await system.whole()
        except TimeoutError as error:
            raise CellFailed(f"after the fault of {name} the system did not get whole again") from error
        finally:
            if fault is not None:
                fault.cancel()
                await asyncio.gather(fault, return_exceptions=True)

    async def _available(self, name: str, system: Subject) -> None:
        """What a workload before it has left behind, such as an open breaker, must not meet this one."""
        try:
            async with asyncio.timeout(self._plan.ready_timeout):
                await system.available()
        except TimeoutError as error:
            raise CellFailed(
                f"{name} was not measured: not every agent took tasks within {self._plan.ready_timeout:g} s before it: "
                f"{system.trouble}"
            ) from error

    def _all(self, system: Subject) -> dict[str, Managed]:
        """Its processes, and the servers behind its agents."""
        return {**system.processes, **self._faults.processes}

    async def _undisturbed(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. Raises `CellFailed` when a process ends on its own meanwhile."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((task, self._died), return_when=asyncio.FIRST_COMPLETED)
            if task.done() and task.exception() is not None:
                # A death that caused it may be noticed a moment later.
                await asyncio.wait((self._died,), timeout=_NOTICE)
            if self._died.done():
                raise CellFailed(self._died.result())
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _on_death(self, process: Managed) -> None:
        event = Event(time.monotonic_ns(), "died", process.name, process.use.exit, self._workload)
        self.cell.events.append(event)
        # The load generator says itself why it failed, to whoever listens to it.
        if process.name != LOAD and not self._died.done():
            when = f" during {self._workload}" if self._workload else ""
            self._died.set_result(
                f"{process.KIND}{process.name} ended on its own{when} ({process.use.exit}); its last lines: "
                f"{process.last_lines()}"
            )

    def _placed(self, change: recorder.Change) -> Event:
        """An event with the workload under way when it happened."""
        within = (
            name
            for name, run in self.cell.workloads.items()
            if run.began_ns and run.began_ns <= change.at_ns <= (run.ended_ns or change.at_ns)
        )
        return Event(change.at_ns, change.what, change.agent, change.detail, next(within, ""), change.tokens)

    def _spec(self, system: Subject, out: Path) -> LoadSpec:
        through = {each.through for each in self._plan.workloads.values()}
        plane = system.client_plane() if "client_plane" in through else None
        return LoadSpec(
            workloads={name: each.of_block(self.cell.block) for name, each in self._plan.workloads.items()},
            out=out,
            seed=self.cell.seed,
            url=system.url,
            client_plane=plane,
            transports=self._arm.transports[:1],
            request=dict(self._arm.request),
            headers=dict(system.headers),
        )


def _load_average() -> list[float]:
    return [round(each, 2) for each in os.getloadavg()]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
