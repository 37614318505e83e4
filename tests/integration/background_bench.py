"""The service ``background`` beside an orchestrator, in one folder over several lives of it; for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anywire.background import BackgroundTask
from anywire.builtin.memory import MemoryTransport
from anywire.caller import Caller
from anywire.engine import EngineStatus
from anywire.identity import agent_info
from anywire.offers import offers
from anywire.roles.agent import Agent
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script, ScriptedEngine
from anywire.testing.patience import expect
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire_service_background.config import BackgroundConfig
from anywire_service_background.database import Database
from anywire_service_background.kept_tasks import KeptTasks
from anywire_service_background.service import Background

ANN, BOB = Caller("ann", "lab"), Caller("bob", "other")


def background(folder: Path, **settings: Any) -> Background:
    return Background(BackgroundConfig(folder=folder / "tasks", **settings))


@asynccontextmanager
async def bench(folder: Path, **settings: Any) -> AsyncIterator[tuple[ServiceBench, KeptTasks]]:
    """A new process, as far as the service can tell, with the folder that the ones before it had."""
    names = BackgroundConfig.model_fields
    service = background(folder, **{name: value for name, value in settings.items() if name in names})
    others = {name: value for name, value in settings.items() if name not in names}
    async with service_bench(service, state=folder, **others) as found:
        yield found, service.offered


def task(tag: str = "a", caller: Caller = ANN, **fields: Any) -> Submission:
    script = {name: fields.pop(name) for name in Script.__struct_fields__ if name in fields}
    return Submission("chat", MODEL, Script(tag, **script).body(), caller=caller, **fields)


async def answered(tasks: KeptTasks, task_id: str, caller: Caller = ANN) -> BackgroundTask:
    """A task that has ended."""
    found = await expect(tasks.get(task_id, caller, 60), "the background task has ended")
    assert found is not None
    assert found.ended
    return found


async def text(tasks: KeptTasks, task_id: str, caller: Caller = ANN) -> str:
    found = await answered(tasks, task_id, caller)
    assert found.chunk is not None, found.error
    return "".join(found.chunk.deltas)


class Fleet(ScriptedEngine):
    """An engine with a model of its own, that holds what says so only while it should."""

    def __init__(self, model: str = MODEL, holds: bool = False) -> None:
        super().__init__()
        self.model, self.holds = model, holds

    def status(self) -> EngineStatus:
        return EngineStatus("ready", offers(self.model))

    async def _obey(self, script: Script, number: int) -> None:
        if self.holds:
            await super()._obey(script, number)

    @property
    def began(self) -> list[str]:
        return [event[1] for event in self.recorder.named("started")]


async def joined(served: ServiceBench, engine: Fleet) -> Agent:
    """One more agent of the orchestrator."""
    network = served.orchestrator.transports[0].config
    agent = Agent(agent_info(engine.model, engine=engine), engine, [MemoryTransport(network)], slots=1)
    await agent.start()
    ready = served.orchestrator.agents_until(lambda agents: any(engine.model in each.offers for each in agents))
    await expect(ready, "the agent has joined")
    return agent


def opened(folder: Path) -> Database:
    database = Database(folder / "tasks", 10, 10_000, 1.0)
    assert database.open()
    return database
