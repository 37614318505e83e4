"""One cell carried out: a system started afresh, streams without the fault, streams with it, and what came of them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from anywire.config import replaced
from anywire.errors import AnywireError
from anywire_experiment.fault_table import notes, observed
from anywire_experiment.fault_table.brokers import companions_of, missing_server, options_of
from anywire_experiment.fault_table.clients import Clients, Round
from anywire_experiment.fault_table.notes import Note
from anywire_experiment.fault_table.observed import Observed
from anywire_experiment.fault_table.setting import USUAL, Setting
from anywire_experiment.fault_table.verdict import STRUCK
from anywire_experiment.faults.catalogue import CLOCK_STEP, CUT_AFTER, GONE_ON, SILENCE, Fault
from anywire_experiment.faults.stand_in import StandIn
from anywire_experiment.network import link
from anywire_experiment.plan.arms import Arm, in_one_process
from anywire_experiment.plan.network import Network
from anywire_experiment.plan.reading import set_key
from anywire_experiment.record.masking import redact_logs, redacted
from anywire_experiment.run.injection import ASKS_A_SERVER, SERVICES, Injection, state_folder, why_not
from anywire_experiment.run.managed import CellFailed, Managed
from anywire_experiment.run.system import ORCHESTRATOR, System, free_dds_domain

T = TypeVar("T")

OTHER = "agent-2"
SYNTHETIC = "synthetic"
TOKENS = 100
PACE = 0.02
"""Seconds between two tokens."""
READY = 120.0
"""Seconds that a system may take until it answers, and until it is whole again."""


def arm_of(fault: Fault, transport: str, private: Path, setting: Setting = USUAL) -> Arm:
    """The system of a cell. Raises `ConfigError`."""
    between_hosts = fault.needs == "network"
    tree: dict[str, Any] = {
        "transports": {transport: dict(options_of(transport, between_hosts=between_hosts))},
        "client_plane": False,
        "server": {"unix": str(_socket(private))},
        # In turn: each agent has as many streams as the other one.
        "selector": {"name": "round_robin"},
        "engine": _engine(setting.engine or (ASKS_A_SERVER if fault.needs == "stand_in" else SYNTHETIC), fault),
        "agent": {"slots": 2 * setting.streams},
        "shutdown_grace": 1.0,
    }
    if fault.needs == "disk":
        state = state_folder(private)
        tree["services"] = {name: {"folder": str(state / name)} for name in SERVICES}
    for each in setting.changes:
        set_key(tree, each)
    return Arm(transport, {}, tree, 2, Network() if between_hosts else None, companions_of(transport))


def _engine(name: str, fault: Fault) -> dict[str, Any]:
    if name == SYNTHETIC:
        return {"name": name, "itl": 1000 * PACE, "length": TOKENS}
    if name != ASKS_A_SERVER:
        return {"name": name}
    return {
        "name": name,
        # The stand-in's is known when it has started.
        "base_url": "http://127.0.0.1:1/v1",
        "resume": "last_message" if fault.resumes else "never",
        "first_token_timeout": SILENCE,
        "next_token_timeout": SILENCE,
    }


def _socket(private: Path) -> Path:
    return private / "gateway"


def _stepped(noted: Sequence[Note], struck_ns: int) -> bool:
    """Whether the time of day was moved back after the clocks were struck."""
    before = [each.clock for each in noted if each.at_ns < struck_ns]
    after = [each.clock for each in noted if each.at_ns >= struck_ns]
    return bool(before and after) and max(before) - min(after) > CLOCK_STEP / 2


class FaultCell:
    """``folder`` gets the logs and configurations of the processes, and ``cell.json``. Once ``interrupted`` has a
    result, its reason, the cell takes away what it made and ends, without being carried out."""

    def __init__(
        self,
        fault: Fault,
        transport: str,
        folder: Path,
        setting: Setting = USUAL,
        interrupted: asyncio.Future[str] | None = None,
    ) -> None:
        self._fault, self._folder, self._setting = fault, folder, setting
        self._died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ends_it = {self._died} if interrupted is None else {self._died, interrupted}
        self.observed = Observed(fault.name, transport)

    async def run(self) -> Observed:
        """Whatever goes wrong with the system is the cell's reason. No process and no file outside of ``folder`` is
        left."""
        seen = self.observed
        seen.started = datetime.now(UTC).isoformat(timespec="milliseconds")
        # Short: a Unix socket's path has at most 107 characters.
        private = Path(tempfile.mkdtemp(prefix="anywire-faults-"))
        try:
            arm = arm_of(self._fault, seen.transport, private, self._setting)
            seen.reason = missing_server(seen.transport) or why_not(
                self._fault, arm.tree["engine"]["name"], one_process=in_one_process(arm)
            )
            if seen.reason:
                seen.state = "n/a"
            else:
                (self._folder / "logs").mkdir(parents=True)
                await self._carry_out(arm, private)
                seen.state = "carried out"
        except (AnywireError, OSError) as error:
            seen.reason = redacted(str(error)) or type(error).__name__
        finally:
            shutil.rmtree(private)
        if (self._folder / "logs").exists():
            redact_logs(self._folder / "logs")
        observed.write(self._folder, seen)
        return seen

    async def _carry_out(self, arm: Arm, private: Path) -> None:
        async with AsyncExitStack() as stack:
            hosts = await stack.enter_async_context(link(arm.network, seed=1)) if arm.network is not None else None
            stand_ins = {name: StandIn(PACE) for name in (STRUCK, OTHER)}
            if arm.tree["engine"]["name"] == ASKS_A_SERVER:
                for each in stand_ins.values():
                    stack.push_async_callback(each.close)
                    await each.start()
            system = System(arm, self._folder, private, (), free_dds_domain(), hosts, self._on_death, beside=(OTHER,))
            stack.push_async_callback(self._stop, system, private)
            self._note(system, private)
            if arm.tree["engine"]["name"] == ASKS_A_SERVER:
                self._point(system, stand_ins)
            injection = Injection(self._fault, system, hosts, stand_ins[STRUCK], private, STRUCK)
            await self._within(READY, "never ready", system.start())
            clients = await stack.enter_async_context(Clients(_socket(private), self._setting.patience))
            await self._unless_dead(self._ask(clients, injection, stand_ins[STRUCK]))
            await self._within(READY, "the system did not get whole again", system.whole())

    def _note(self, system: System, private: Path) -> None:
        """Have the orchestrator note what it notices."""
        orchestrator = system.orchestrator
        orchestrator.environment = {**orchestrator.environment, notes.VARIABLE: str(private / "notes.jsonl")}
        config = system.configs[ORCHESTRATOR]
        system.configs[ORCHESTRATOR] = replaced(config, plugins=[*config.plugins, notes.__name__])

    def _point(self, system: System, stand_ins: Mapping[str, StandIn]) -> None:
        """Have each agent ask its own server."""
        config = system.configs[ORCHESTRATOR]
        engines = {name: {**config.engine.model_dump(), "base_url": each.url} for name, each in stand_ins.items()}
        for name in system.agents:
            system.configs[name] = replaced(system.configs[name], engine=engines[name])
        if not system.agents:
            agents = [{"id": name, "engine": engine} for name, engine in engines.items()]
            system.configs[ORCHESTRATOR] = replaced(system.configs[ORCHESTRATOR], agents=agents)

    async def _ask(self, clients: Clients, injection: Injection, stand_in: StandIn) -> None:
        seen, fault = self.observed, self._fault
        before = "word " * (fault.prompt_chars // 5)
        prompts = [f"{before}Tell a long story about stream{number}" for number in range(self._setting.streams)]
        undisturbed = clients.ask(prompts, TOKENS)
        await undisturbed.ended()
        seen.undisturbed = undisturbed.seen
        if wrong := next((each for each in undisturbed.seen if each.outcome != "ok"), None):
            raise CellFailed(f"a stream without the fault ended with {wrong.outcome}: {wrong.message}")
        if fault.first:
            seen.struck_ns = time.monotonic_ns()
            await injection.strike()
            asked = clients.ask(prompts, TOKENS)
        else:
            asked = clients.ask(prompts, TOKENS)
            await asked.under_way(CUT_AFTER)
            seen.struck_ns = time.monotonic_ns()
            await injection.strike()
        seen.seen = asked.seen
        if fault.lasts or fault.goes_on:
            await (asyncio.sleep(fault.lasts) if fault.lasts else asked.under_way(GONE_ON))
            await injection.undo()
            await asked.ended()
        else:
            await self._until_ended(clients, asked)
            await injection.undo()
        if fault.needs == "disk":
            await self._background(clients, is_full=False)
        seen.struck_ns = stand_in.first_met_ns or seen.struck_ns
        seen.met = self._met(stand_in)
        if fault.needs == "network" and not injection.lost_frames:
            seen.problems.append("the network lost no frame: what this transport sends does not cross it")

    async def _until_ended(self, clients: Clients, asked: Round) -> None:
        if self._fault.needs == "disk":
            await self._background(clients, is_full=True)
        await asked.ended()

    async def _background(self, clients: Clients, *, is_full: bool) -> None:
        """Ask for a background task, which needs the disk."""
        status, code = await clients.ask_background("Ready?")
        if is_full and status < 500:
            self.observed.problems.append(f"a background task was answered {status} {code} while the disk was full")
        if not is_full and status != 202:
            self.observed.problems.append(f"a background task was answered {status} {code} once the disk had room")

    def _met(self, stand_in: StandIn) -> int:
        """How many requests or streams met the fault."""
        seen, fault = self.observed, self._fault
        if stand_in.met:
            return stand_in.met
        under_way = [each for each in seen.seen if each.ended_ns > seen.struck_ns]
        return sum(each.agent == STRUCK for each in under_way) if fault.crosses else len(under_way)

    async def _stop(self, system: System, private: Path) -> None:
        stopping_ns = time.monotonic_ns()
        await system.stop()
        noted = notes.read(private / "notes.jsonl")
        # Agents that leave because the cell is over were not struck.
        seen = self.observed
        seen.notes = [each for each in noted if seen.struck_ns <= each.at_ns < stopping_ns] if seen.struck_ns else []
        if self._fault.needs == "clock" and not _stepped(noted, seen.struck_ns):
            seen.problems.append("the clock of the orchestrator was not set back")
        if self._fault.name == "refused":
            # What is refused at the port reaches no server that could count it.
            seen.met = sum(each.trouble and each.agent == STRUCK for each in seen.notes)

    async def _within(self, seconds: float, what: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._unless_dead(work)
        except TimeoutError as error:
            raise CellFailed(f"{what} within {seconds:g} s") from error

    async def _unless_dead(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. Raises `CellFailed` when a process ends on its own meanwhile, or when the cell is
        interrupted."""
        task = asyncio.create_task(work)
        try:
            waiting: set[asyncio.Future[Any]] = {task, *self._ends_it}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reason := next((each.result() for each in self._ends_it if each.done()), ""):
                raise CellFailed(reason)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _on_death(self, process: Managed) -> None:
        if not self._died.done():
            self._died.set_result(
                f"{process.name} ended on its own ({process.use.exit}); its last lines: {process.last_lines()}"
            )
