"""The service ``deliberation`` beside an orchestrator with an engine whose members do what a test says, in one folder
over several lives of it; for tests."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import msgspec

from anywire.caller import Caller
from anywire.context import Context
from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import EngineFailed
from anywire.messages import TaskRequest
from anywire.offers import offers
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, ScriptedConfig
from anywire.testing.patience import expect
from anywire.testing.recorder import Recorder
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.service import DeliberationService

ANN, BOB = Caller("ann", "lab"), Caller("bob", "other")

Behaviour = Callable[[str, str, int], str]
"""What a member does with a piece of work, asked for the nth time: ``answer``, ``hang``, ``nonsense``, ``fail``."""


def well(member: str, kind: str, asked: int) -> str:
    return "answer"


class Council(Engine):
    """Answers each piece of work with a text that its request alone decides, so that any two runs are the same.

    Records ``asked`` (member, kind, the request), ``answered`` (member, kind) and ``cancelled`` (member, kind).
    """

    name: ClassVar[str] = "council"
    Config = ScriptedConfig

    def __init__(self, behaviour: Behaviour = well, models: tuple[str, ...] = (MODEL,)) -> None:
        super().__init__(ScriptedConfig())
        self.behaviour, self._models = behaviour, models
        self.recorder = Recorder()
        self._gates: dict[str, asyncio.Event] = {}
        self.counts: Counter[tuple[str, str, str]] = Counter()

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", offers(*self._models))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        member, kind = task.session.rpartition("/")[2], kind_of(task.body)
        self.counts[member, kind, task.body] += 1
        self.recorder.add("asked", member, kind, task)
        does = self.behaviour(member, kind, self.counts[member, kind, task.body])
        try:
            if (gate := self._gates.get(kind)) is not None:
                await gate.wait()
            if does == "hang":
                await asyncio.get_running_loop().create_future()
        except (asyncio.CancelledError, GeneratorExit):
            self.recorder.add("cancelled", member, kind)
            raise
        if does == "fail":
            raise EngineFailed("the member says so")
        self.recorder.add("answered", member, kind)
        yield Delta(self._text(member, kind, does, task.body), "", "stop", USAGE)

    def hold(self, kind: str) -> None:
        """Answer no work of that kind until `release`."""
        self._gates[kind] = asyncio.Event()

    def release(self, kind: str) -> None:
        self._gates[kind].set()

    def asked(self, kind: str = "") -> list[str]:
        """The members asked for that kind of work, in order."""
        return [event[1] for event in self.recorder.named("asked") if kind in ("", event[2])]

    async def all_asked(self, kind: str, count: int) -> None:
        await self.recorder.until(lambda: len(self.asked(kind)) >= count, f"{count} are asked for {kind}")

    def named(self, event: str, kind: str) -> list[str]:
        """The members of these events, in order."""
        return [each[1] for each in self.recorder.named(event) if each[2] == kind]

    def _text(self, member: str, kind: str, does: str, body: str) -> str:
        drawn = hashlib.sha256(body.encode()).digest()
        if kind == "score":
            if does == "nonsense":
                return "What a lovely day it is."
            return "\n".join(f"{name}: {1 + drawn[at] % 5}" for at, name in enumerate(criteria_of(body)))
        return f"{kind} by {member}: {drawn.hex()[:12]}"


USAGE = '{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}'
RUBRIC = {"criteria": [{"name": "clarity"}, {"name": "truth", "weight": 2.0}]}


def criteria_of(body: str) -> list[str]:
    return [name for name in ("clarity", "truth") if name in body]


def kind_of(body: str) -> str:
    """Which kind of work a request asks for, read from its last message."""
    said = msgspec.json.decode(body)["messages"][-1]["content"]
    marks = {"Score the proposal": "score", "Criticise this": "critique", "Write it anew": "revision",
             "Write one answer": "synthesis"}  # fmt: skip
    return next((kind for mark, kind in marks.items() if mark in said), "proposal")


class _Timed:
    """A context whose time is that of another clock."""

    def __init__(self, context: Context, clock: SimulatedClock) -> None:
        self._context, self.clock = context, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class TimedService(DeliberationService):
    """The service with a clock of its own: the pipeline and the agent go on in real time."""

    def __init__(self, config: DeliberationConfig, clock: SimulatedClock | None) -> None:
        super().__init__(config)
        self._clock = clock

    async def start(self, context: Context) -> None:
        await super().start(cast("Context", _Timed(context, self._clock)) if self._clock else context)


@asynccontextmanager
async def bench(
    folder: Path, clock: SimulatedClock | None = None, **settings: Any
) -> AsyncIterator[tuple[ServiceBench, KeptDeliberations]]:
    """A new process, as far as the service can tell, with the folder that the ones before it had."""
    names = DeliberationConfig.model_fields
    own = {name: value for name, value in settings.items() if name in names}
    others = {name: value for name, value in settings.items() if name not in names}
    service = TimedService(DeliberationConfig(**{"folder": folder / "kept", **own}), clock)
    async with service_bench(service, state=folder, **{"engine": Council(), "slots": 64, **others}) as served:
        yield served, service.offered


def request(**members: Any) -> dict[str, Any]:
    return {"id": "q-1", "task": "Reverse a list.", "members": 3, "rubric": RUBRIC, **members}


async def asked(kept: KeptDeliberations, caller: Caller = ANN, **members: Any) -> Deliberation:
    """One that is taken in."""
    return await expect(kept.submit(kept.question(request(**members), caller)), "the deliberation is taken in")


async def status(kept: KeptDeliberations, wanted: str, question_id: str = "q-1") -> None:
    """Wait until it is in that stage."""

    async def wait() -> None:
        async with aclosing(kept.updates(question_id, ANN)) as updates:
            async for update in updates:
                if update.name == "stage" and update.data["status"] == wanted:
                    return

    await expect(wait(), f"the deliberation is {wanted}")


async def answers(kept: KeptDeliberations, count: int, question_id: str = "q-1") -> None:
    """Wait until so many answers are kept."""

    async def wait() -> None:
        seen = 0
        async with aclosing(kept.updates(question_id, ANN)) as updates:
            async for update in updates:
                seen += update.name == "answered"
                if seen >= count:
                    return

    await expect(wait(), f"{count} answers are kept")


async def ended(kept: KeptDeliberations, question_id: str = "q-1", caller: Caller = ANN) -> Deliberation:
    """One that has ended."""
    found = await expect(kept.get(question_id, caller, 60), "the deliberation has ended")
    assert found is not None
    assert found.is_final, found.status
    return found
