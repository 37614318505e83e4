"""Stand-ins the kit needs to run a pipeline with the core alone: an engine told what to do, a queue, a choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, ClassVar

import msgspec
import pydantic

from anywire.builtin.fifo import Fifo
from anywire.builtin.least_loaded import LeastLoaded
from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import EngineFailed, InvalidRequest, UnknownCommand
from anywire.messages import TaskRequest
from anywire.offers import offers, offers_text
from anywire.scheduler import QueuedTask, SchedulerConfig
from anywire.selector import AgentView, Candidates, Selector, SelectorConfig
from anywire.testing.recorder import Recorder

MODEL = "scripted"
OFFERS = offers_text(offers(MODEL))


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
        return EngineStatus("ready", offers(MODEL))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        try:
            script = msgspec.json.decode(task.body, type=Script)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise InvalidRequest(f"the body is no script: {error}") from error
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

    async def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """``count``: gives as many numbers as its argument ``count`` says; with ``hold`` it waits then until it is
        cancelled, with ``fail`` it raises. Records ``command``, ``command_cancelled`` and ``command_finished``."""
        if name != "count":
            raise UnknownCommand(f"the scripted engine has no command {name!r}")
        count = arguments.get("count")
        if not isinstance(count, int):
            raise InvalidRequest(f"count must be a number, found {count!r:.80}", param="count")
        self.recorder.add("command", dict(arguments))
        try:
            for number in range(count):
                yield number
            if arguments.get("hold"):
                await asyncio.get_running_loop().create_future()
            if arguments.get("fail"):
                raise EngineFailed("the command says so")
        except (asyncio.CancelledError, GeneratorExit):
            self.recorder.add("command_cancelled")
            raise
        self.recorder.add("command_finished")

    async def _obey(self, script: Script, number: int) -> None:
        if number == script.hold_after:
            self.recorder.add("holding", script.tag)
            await asyncio.get_running_loop().create_future()
        if number == script.fail_after:
            raise EngineFailed("the script says so")


def fifo(max_queue_size: int = 100_000) -> Fifo:
    """The core's own scheduler, with a bound of its own."""
    return Fifo(SchedulerConfig(max_queue_size=max_queue_size))


def least_loaded() -> LeastLoaded:
    """The core's own selector."""
    return LeastLoaded(SelectorConfig())


class Only(Selector):
    """Chooses that agent or none."""

    name: ClassVar[str] = "only"

    def __init__(self, agent_id: str) -> None:
        super().__init__(SelectorConfig())
        self._agent_id = agent_id

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView | None:
        return candidates.get(self._agent_id)
