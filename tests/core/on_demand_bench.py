"""An orchestrator over a puppet's wire with agents on demand, whose processes live as a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from anywire.config import Config
from anywire.errors import LaunchFailed
from anywire.events import AgentOnDemand
from anywire.roles.agent_configs import agent_sorts
from anywire.roles.on_demand.keeper import AgentsOnDemand
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport

SETTINGS = {"transports": "zeromq", "engine": "synthetic", "agent": {"id": "a"}}


class FakeProcess:
    """A `anywire.launcher.RunningProcess` whose life the test decides."""

    pid, host, restarts = 0, "here", 0
    fault: Exception | None = None

    def __init__(self, name: str, stopped: Callable[[str], None]) -> None:
        self.name, self._stopped = name, stopped
        self.is_ready, self.end = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def ready(self) -> None:
        waiting = asyncio.ensure_future(self.is_ready.wait())
        try:
            await asyncio.wait((waiting, self.end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not self.is_ready.is_set():
            raise LaunchFailed(f"{self.name} did not start: {self.end.result()}")

    async def ended(self) -> str:
        return str(await asyncio.shield(self.end))

    def logs(self) -> Sequence[str]:
        return ()

    async def stop(self, grace: float = 10.0) -> None:
        self._stopped(self.name)
        if self.fault is not None:
            raise self.fault
        if not self.end.done():
            self.end.set_result("stopped")


class Bench:
    """An orchestrator over a puppet's wire, with agents on demand."""

    def __init__(self, pipeline: Any, wire: PuppetTransport, clock: SimulatedClock, **settings: Any) -> None:
        self.pipeline, self.wire, self.clock = pipeline, wire, clock
        self.processes: dict[str, FakeProcess] = {}
        self.fault: Exception | None = None
        self.stopped: list[str] = []
        self.closing = self.stays = False
        """``stays``: an agent is there for a while after its process has ended."""
        self.told: list[tuple[str, str]] = []
        pipeline.events.subscribe("test", self._tell, AgentOnDemand)
        config = Config.model_validate({**SETTINGS, **settings})
        sorts = agent_sorts(config)
        self.keeper = AgentsOnDemand(sorts, config.on_demand, pipeline, self._start, 1.0)
        self.keeper.begin()

    async def _start(self, name: str, config: Config) -> FakeProcess:
        assert config.agent.id == name
        if self.fault is not None:
            raise self.fault
        self.processes[name] = FakeProcess(name, self._stop)
        return self.processes[name]

    def _stop(self, name: str) -> None:
        self.stopped.append(name)
        if not self.closing and self.pipeline.registry.knows(name):
            assert self.pipeline.agent_health(name).order == "drained", "no task is on its way to it"
        if self.processes[name].fault is None and not self.stays:
            # As an agent does that is asked to stop while nothing runs on it.
            self.wire.lose(name)

    def _tell(self, event: AgentOnDemand) -> None:
        self.told.append((event.agent_id, event.state))

    async def advance(self, seconds: float) -> None:
        await settled()
        while seconds > 0:
            self.clock.advance(min(0.5, seconds))
            seconds -= 0.5
            await settled()

    def join(self, *names: str, **status: Any) -> None:
        for name in names:
            if name in self.processes:
                self.processes[name].is_ready.set()
            self.wire.join(name, **{"slots": 1, **status})

    def chats(self, count: int, model: str = MODEL) -> list[Any]:
        return [self.pipeline.submit(Submission("chat", model, "{}", deadline_s=10_000.0)) for _ in range(count)]

    def answer(self, *agents: str) -> None:
        """End what runs on these agents."""
        open_ = {task.task_id for task in self.pipeline.tasks() if task.place == "running"}
        for agent_id, task in self.wire.requests:
            if agent_id in agents and task.task_id in open_:
                open_.discard(task.task_id)
                self.wire.answer(task)

    @property
    def numbers(self) -> dict[str, float]:
        return {each.name: each.value for each in self.keeper.metrics()}


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
