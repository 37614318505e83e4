"""Stand-ins the kit needs to run a pipeline with the core alone: an engine told what to do, a queue, a choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import ClassVar

import msgspec
import pydantic

from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import EngineFailed
from anywire.messages import TaskRequest
from anywire.scheduler import QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, Selector
from anywire.testing.recorder import Recorder

MODEL = "scripted"


class Script(msgspec.Struct, frozen=True):
    """The request body of a scripted task: ``chunks`` deltas, each ``tag:number;`` and padded to ``size`` characters;
    ``hold_after`` n: after n deltas wait until cancelled; ``fail_after`` n: then raise."""

    tag: str = ""
    chunks: int = 1
    size: int = 0
    hold_after: int = -1
    fail_after: int = -1
    filler: str = ""

    def body(self) -> str:
        return msgspec.json.encode(self).decode()

    def delta(self, number: int) -> str:
        return f"{self.tag}:{number};".ljust(self.size, "x")

    def text(self) -> str:
        return "".join(map(self.delta, range(self.chunks)))


class ScriptedConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class ScriptedEngine(Engine):
    """Does what the body's `Script` says and records ``started``, ``delta``, ``cancelled``, ``finished`` by tag."""

    name: ClassVar[str] = "scripted"
    Config = ScriptedConfig

    def __init__(self, recorder: Recorder | None = None) -> None:
        super().__init__(ScriptedConfig())
        self.recorder = recorder or Recorder()

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", (MODEL,))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        script = msgspec.json.decode(task.body, type=Script)
        self.recorder.add("started", script.tag, task.attempt)
        try:
            for number in range(script.chunks):
                await self._obey(script, number)
                self.recorder.add("delta", script.tag, number)
                yield Delta(script.delta(number))
                await asyncio.sleep(0)
            await self._obey(script, script.chunks)
            yield Delta("", "", "stop", f'{{"completion_tokens":{script.chunks}}}')
        except (asyncio.CancelledError, GeneratorExit):
            self.recorder.add("cancelled", script.tag, task.attempt)
            raise
        self.recorder.add("finished", script.tag, task.attempt)

    async def _obey(self, script: Script, number: int) -> None:
        if number == script.hold_after:
            self.recorder.add("holding", script.tag)
            await asyncio.get_running_loop().create_future()
        if number == script.fail_after:
            raise EngineFailed("the script says so")


class ListScheduler(Scheduler):
    """First come, first served, in a list."""

    name: ClassVar[str] = "list"

    def __init__(self, max_queue_size: int = 100_000) -> None:
        super().__init__(self.Config(max_queue_size=max_queue_size))
        self._tasks: list[QueuedTask] = []

    def put(self, task: QueuedTask) -> None:
        if len(self._tasks) >= self.config.max_queue_size:
            raise self.full()
        self._tasks.append(task)

    def put_back(self, task: QueuedTask) -> None:
        self._tasks.insert(0, task)

    def take(self, ready: Callable[[QueueKey], bool]) -> QueuedTask | None:
        answers: dict[QueueKey, bool] = {}
        for task in self._tasks:
            if task.key not in answers:
                answers[task.key] = ready(task.key)
            if answers[task.key]:
                self._tasks.remove(task)
                return task
        return None

    def remove(self, task_id: str) -> bool:
        before = len(self._tasks)
        self._tasks = [task for task in self._tasks if task.task_id != task_id]
        return len(self._tasks) < before

    def __len__(self) -> int:
        return len(self._tasks)


class IdlestSelector(Selector):
    """The agent with the fewest tasks; with ``only``, that agent or none."""

    name: ClassVar[str] = "idlest"

    def __init__(self, only: str = "") -> None:
        super().__init__(self.Config())
        self._only = only

    def select(self, task: QueuedTask, candidates: Sequence[AgentView]) -> AgentView | None:
        wanted = [agent for agent in candidates if self._only in ("", agent.agent_id)]
        return min(wanted, key=lambda agent: agent.in_flight, default=None)
