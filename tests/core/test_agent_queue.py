"""The agent's own queue: what is taken in beyond the slots waits its turn, is told of, and can be given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from tests.core.test_agent import MODEL, _Engine, _Reply, _Wire, until

from anywire import errors
from anywire.engine import Delta, EngineStatus
from anywire.identity import agent_info
from anywire.messages import Cancel, Progress, State, TaskRequest
from anywire.offers import offers
from anywire.roles.agent import Agent
from anywire.testing.doubles import MODEL as SCRIPTED
from anywire.testing.doubles import Script, ScriptedEngine
from anywire.testing.rig import Rig, read, submit


class Changing(_Engine):
    """Can say that its status is another one."""

    async def start(self, changed: Callable[[], None]) -> None:
        self.changed = changed


class Rigged:
    """An agent with one slot and a queue; each task ends when it is told to."""

    def __init__(self, queue: int = 2, slots: int = 1) -> None:
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.state: State = "ready"
        self.slots: int | None = None
        self.wire = _Wire()
        self.engine = engine = Changing(self._run, lambda: EngineStatus(self.state, offers(MODEL), slots=self.slots))
        self.agent = Agent(
            agent_info("a", engine=engine),
            engine,
            [self.wire],  # type: ignore[list-item]
            slots=slots,
            queue=queue,
        )

    async def _run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        self.begun.append(task.task_id)
        await self.ends.setdefault(task.task_id, asyncio.Event()).wait()
        yield Delta(task.task_id, finish_reason="stop")

    def ask(self, task_id: str, *, progress: bool = False) -> Reply:
        reply = Reply()
        request = TaskRequest("hub", task_id, 1, "chat", MODEL, "{}", True, credit=64, progress=progress)
        self.wire.sink.task_received("hub", 1, request, reply)
        return reply

    def end(self, task_id: str) -> None:
        self.ends.setdefault(task_id, asyncio.Event()).set()

    @property
    def load(self) -> tuple[int, int]:
        status = self.agent.status()
        return status.active, status.queued


class Reply(_Reply):
    """Keeps progress apart."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []

    def send(self, message: object) -> None:
        if isinstance(message, Progress):
            self.states.append(message.state)
        else:
            super().send(message)  # type: ignore[arg-type]


async def test_what_waits_begins_in_its_order_when_slots_are_free() -> None:
    rigged = Rigged(queue=2)
    await rigged.agent.start()
    replies = {name: rigged.ask(name, progress=True) for name in ("1", "2", "3", "4")}
    await until(lambda: rigged.begun)
    assert rigged.load == (1, 2)
    assert isinstance(await replies["4"].error(), errors.Refused)
    for name in ("1", "2", "3"):
        rigged.end(name)
        assert (await replies[name].final).error == ""
    assert rigged.begun == ["1", "2", "3"]
    assert rigged.load == (0, 0)
    assert [replies[name].states for name in ("1", "2", "3")] == [[], ["queued", "running"], ["queued", "running"]]
    await rigged.agent.close()


async def test_without_progress_nothing_is_told() -> None:
    rigged = Rigged()
    await rigged.agent.start()
    rigged.ask("1")
    waits = rigged.ask("2")
    rigged.end("1")
    rigged.end("2")
    await waits.final
    assert waits.states == []
    await rigged.agent.close()


async def test_what_waits_can_be_cancelled_and_frees_its_place() -> None:
    rigged = Rigged(queue=1)
    await rigged.agent.start()
    rigged.ask("1")
    waits = rigged.ask("2")
    rigged.wire.sink.cancel_received("hub", 1, Cancel("hub", "2", 1, "not wanted"))
    assert isinstance(await waits.error(), errors.TaskCancelled)
    assert rigged.load == (1, 0)
    last = rigged.ask("3")
    rigged.end("1")
    rigged.end("3")
    await last.final
    assert rigged.begun == ["1", "3"]
    await rigged.agent.close()


@pytest.mark.parametrize("why", ["drain", "failure", "hub"])
async def test_what_waits_is_given_back_when_the_agent_cannot_serve_it(why: str) -> None:
    rigged = Rigged()
    await rigged.agent.start()
    runs, *waits = (rigged.ask(name) for name in ("1", "2", "3"))
    await until(lambda: rigged.begun)
    if why == "drain":
        rigged.agent.begin_drain("test")
    elif why == "failure":
        rigged.state = "failed"
        rigged.engine.changed()
    else:
        rigged.wire.sink.hub_lost("hub", 1, "gone")
    expected = errors.TaskCancelled if why == "hub" else errors.Refused
    for each in waits:
        assert isinstance(await each.error(), expected)
    assert rigged.begun == ["1"]
    if why != "hub":
        rigged.end("1")
        assert (await runs.final).error == ""
    await rigged.agent.close()


async def test_slots_that_an_engine_gains_are_used_at_once() -> None:
    rigged = Rigged()
    rigged.slots = 1
    await rigged.agent.start()
    for name in ("1", "2", "3"):
        rigged.ask(name)
    await until(lambda: rigged.begun)
    rigged.slots = 3
    rigged.engine.changed()
    await until(lambda: len(rigged.begun) == 3)
    assert rigged.load == (3, 0)
    await rigged.agent.close()


async def test_two_orchestrators_that_send_at_once_are_both_served() -> None:
    """Neither knows what the other one sends; without a queue one of them is refused and sends again."""
    async with Rig("memory", {"network": "agent-queue"}) as rig:
        engine = ScriptedEngine()
        agent = Agent(agent_info("a", engine=engine), engine, [rig.new_transport()], slots=1, queue=1)
        await agent.start()
        try:
            hubs = [await rig.pipeline("a") for _ in range(2)]
            streams = [submit(hub, Script(str(number), chunks=3)) for number, hub in enumerate(hubs)]
            assert [await read(each) for each in streams] == [Script(str(n), chunks=3).text() for n in range(2)]
            assert [each.attempts for each in streams] == [1, 1]
            assert sum(hub.stats()["events"].get("refused", 0) for hub in hubs) == 0
            assert SCRIPTED in hubs[0].models()
        finally:
            await agent.close()
