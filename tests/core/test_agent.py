"""The agent: engines that break their contract, slots until they have ended, and hubs that lie."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from tests.patience import PATIENCE

from anywire import errors
from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.identity import agent_info
from anywire.messages import Cancel, Chunk, Credit, TaskRequest
from anywire.offers import offers
from anywire.roles.agent import Agent
from anywire.roles.agent_run import MAX_DELTAS
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import ScriptedConfig
from anywire.transport import AgentPort

MODEL = "m"


class _Engine(Engine):
    name: ClassVar[str] = "odd"
    Config = ScriptedConfig

    def __init__(self, run: Callable[[TaskRequest], Any], status: Callable[[], Any] | None = None) -> None:
        super().__init__(ScriptedConfig())
        self._run, self._status = run, status or (lambda: EngineStatus("ready", offers(MODEL)))

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        status: EngineStatus = self._status()
        return status

    def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        deltas: AsyncGenerator[Delta, None] = self._run(task)
        return deltas


class _Port(AgentPort):
    def __init__(self) -> None:
        self.reports: list[Any] = []

    def report(self, status: Any) -> None:
        self.reports.append(status)

    async def close(self) -> None:
        """Holds nothing."""


class _Wire:
    """A transport of one port; the test is the hub."""

    name = "wire"
    capabilities = None

    def __init__(self) -> None:
        self.port = _Port()
        self.sink: Any = None

    async def open_agent(self, info: Any, plane: Any, sink: Any) -> AgentPort:
        self.sink = sink
        return self.port


class _Reply:
    """``full`` answers are refused with `Congested` before the next is taken; ``limit`` is in characters."""

    def __init__(self, full: int = 0, limit: int = 10**9, broken: int = 0) -> None:
        self.chunks: list[Chunk] = []
        self.full, self.limit, self.broken, self.tries = full, limit, broken, 0
        self.final: asyncio.Future[Chunk] = asyncio.get_running_loop().create_future()

    def send(self, chunk: Chunk) -> None:
        self.tries += 1
        if self.full:
            self.full -= 1
            raise errors.Congested("no room")
        if self.broken:
            self.broken -= 1
            raise RuntimeError("against the contract")
        size = sum(map(len, chunk.deltas)) + len(chunk.error)
        if size > self.limit:
            raise errors.PayloadTooLarge(f"{size} are over {self.limit}")
        self.chunks.append(chunk)
        if chunk.final and not self.final.done():
            self.final.set_result(chunk)

    async def drain(self) -> None:
        """Says at once that there is room."""

    async def error(self) -> errors.AnywireError:
        final = await asyncio.wait_for(self.final, PATIENCE)
        return errors.from_wire(final.error, phase="streaming")


async def agent_of(engine: Engine, *, slots: int = 1, clock: Any = None) -> tuple[Agent, _Wire]:
    wire = _Wire()
    agent = Agent(agent_info("a", engine=engine), engine, [wire], slots=slots, clock=clock)  # type: ignore[list-item]
    await agent.start()
    return agent, wire


async def until(condition: Callable[[], Any]) -> None:
    """Turn the event loop until ``condition`` holds: what it looks at tells nobody when it changes."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def ask(wire: _Wire, reply: _Reply, task_id: str = "t", attempt: int = 1, *, stream: bool = True) -> TaskRequest:
    request = TaskRequest("hub", task_id, attempt, "chat", MODEL, "{}", stream, credit=64)
    wire.sink.task_received("hub", 1, request, reply)
    return request


async def _yields(*deltas: Any) -> AsyncGenerator[Any, None]:
    for delta in deltas:
        yield delta


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    "odd",
    [
        5, "text", None, Delta(5), Delta("x", extra=[]), Delta("x", usage={}), Delta("xy", parts=["x", "y"]),  # type: ignore[arg-type]
        Delta("xy", parts=("x", 5)), Delta("xy", parts=("x", "z")), Delta("", parts=None),  # type: ignore[arg-type]
    ],
    ids=repr,
)  # fmt: skip
async def test_what_is_no_delta_fails_the_task_alone(odd: Any, stream: bool) -> None:
    agent, wire = await agent_of(_Engine(lambda task: _yields(Delta("fine"), odd)))
    reply = _Reply()
    ask(wire, reply, stream=stream)
    error = await reply.error()
    assert isinstance(error, errors.EngineFailed)
    assert "no Delta" in str(error)
    assert agent.status().active == 0
    assert agent.boundary.failures["engine odd.run"] == 1
    await agent.close()


@pytest.mark.parametrize("run", [lambda task: 5, lambda task: None, lambda task: 1 / 0], ids=["5", "none", "raises"])
async def test_a_run_that_is_no_generator_fails_the_task_alone(run: Any) -> None:
    agent, wire = await agent_of(_Engine(run))
    reply = _Reply()
    ask(wire, reply)
    assert isinstance(await reply.error(), errors.EngineFailed)
    await agent.close()


async def test_a_status_that_raises_or_is_none_is_reported_as_failed_and_the_heartbeat_goes_on() -> None:
    statuses: list[Any] = [EngineStatus("ready", offers(MODEL))]

    def status() -> Any:
        if isinstance(statuses[0], Exception):
            raise statuses[0]
        return statuses[0]

    clock = SimulatedClock()
    agent, wire = await agent_of(_Engine(lambda task: _yields(), status), clock=clock)
    nonsense = ["ready", EngineStatus("nonsense"), EngineStatus("ready", slots=10**400), EngineStatus("ready", (5,))]  # type: ignore[arg-type]
    for odd in (ValueError("status"), *nonsense):
        statuses[0] = odd
        clock.advance(0.3)
        assert wire.port.reports[-1].state == "failed"
    statuses[0] = EngineStatus("ready", offers(MODEL))
    clock.advance(0.3)
    assert wire.port.reports[-1].state == "ready"
    await agent.close()


async def test_the_slot_is_taken_until_the_cancelled_generator_has_ended() -> None:
    ending = asyncio.Event()
    begun = asyncio.Event()

    async def slow_to_end(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        try:
            begun.set()
            await asyncio.get_running_loop().create_future()
            yield Delta("never")
        finally:
            await ending.wait()

    agent, wire = await agent_of(_Engine(slow_to_end))
    reply, refused = _Reply(), _Reply()
    ask(wire, reply)
    await begun.wait()
    wire.sink.cancel_received("hub", 1, Cancel("hub", "t", 1, "not wanted"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert agent.status().active == 1
    ask(wire, refused, "other")
    assert isinstance(await refused.error(), errors.Refused)
    assert not reply.final.done()
    ending.set()
    error = await reply.error()
    assert isinstance(error, errors.TaskCancelled)
    assert str(error) == "not wanted"
    assert agent.status().active == 0
    await agent.close()


async def test_an_engine_that_swallows_its_cancel_is_stopped_at_its_next_delta() -> None:
    closed = asyncio.Event()

    async def stubborn(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        try:
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.001)
                yield Delta("more")
        finally:
            closed.set()

    agent, wire = await agent_of(_Engine(stubborn))
    reply = _Reply()
    ask(wire, reply)
    await until(lambda: reply.chunks)
    wire.sink.cancel_received("hub", 1, Cancel("hub", "t", 1))
    assert isinstance(await reply.error(), errors.TaskCancelled)
    assert closed.is_set()
    await agent.close()


async def test_an_engine_that_never_ends_is_named_and_the_agent_closes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("anywire.roles.engine_stopper.ENGINE_PATIENCE", 0.05)
    free = asyncio.Event()
    begun = asyncio.Event()

    async def deaf(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        begun.set()
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await free.wait()
        yield Delta("late")

    agent, wire = await agent_of(_Engine(deaf))
    ask(wire, _Reply())
    await begun.wait()
    wire.sink.cancel_received("hub", 1, Cancel("hub", "t", 1))
    await until(lambda: agent.boundary.failures["engine odd.run"])
    assert agent.status().active == 1
    await asyncio.wait_for(agent.close(), PATIENCE)
    free.set()
    await until(lambda: not agent.status().active)


async def test_a_cancel_names_exactly_one_attempt() -> None:
    async def holds(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.get_running_loop().create_future()
        yield Delta("never")

    agent, wire = await agent_of(_Engine(holds), slots=3)
    replies = [_Reply() for _ in range(3)]
    for number, reply in enumerate(replies, 1):
        ask(wire, reply, attempt=number)
    assert agent.status().active == 3
    wire.sink.cancel_received("hub", 1, Cancel("hub", "t", 2, "this one"))
    assert isinstance(await replies[1].error(), errors.TaskCancelled)
    assert agent.status().active == 2
    assert not replies[0].final.done()
    assert not replies[2].final.done()
    await agent.close()


async def test_a_cancel_that_overtakes_its_request_is_answered_when_it_comes() -> None:
    agent, wire = await agent_of(_Engine(lambda task: _yields(Delta("text"))))
    wire.sink.cancel_received("hub", 1, Cancel("hub", "t", 1))
    first, second = _Reply(), _Reply()
    ask(wire, first)
    ask(wire, second, attempt=2)
    assert isinstance(await first.error(), errors.TaskCancelled)
    assert (await second.final).error == ""
    await agent.close()


async def test_a_task_that_brings_nothing_is_told_accepted_a_heartbeat_later_and_a_quick_one_is_not() -> None:
    clock = SimulatedClock()
    goes_on: dict[str, asyncio.Event] = {"slow": asyncio.Event()}

    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        if task.task_id in goes_on:
            await goes_on[task.task_id].wait()
        yield Delta("text")

    agent, wire = await agent_of(_Engine(run), slots=5, clock=clock)
    quick, slow, whole = _Reply(), _Reply(), _Reply()
    ask(wire, quick, "quick")
    ask(wire, slow, "slow")
    goes_on["whole"] = asyncio.Event()
    ask(wire, whole, "whole", stream=False)
    await quick.final
    for _ in range(4):
        clock.advance(0.25)
    assert [(chunk.seq, chunk.deltas, chunk.final) for chunk in slow.chunks] == [(0, (), False)]
    assert [(chunk.seq, chunk.deltas, chunk.final) for chunk in whole.chunks] == [(0, (), False)]
    for event in goes_on.values():
        event.set()
    assert (await whole.final).deltas == ("text",)
    await slow.final
    assert all(chunk.deltas or chunk.final for chunk in quick.chunks)
    await agent.close()


async def test_hubs_speak_for_themselves_alone() -> None:
    async def holds(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.get_running_loop().create_future()
        yield Delta("never")

    agent, wire = await agent_of(_Engine(holds))
    ask(wire, _Reply())
    wire.sink.cancel_received("other", 1, Cancel("hub", "t", 1))
    wire.sink.credit_received("other", 1, Credit("hub", "t", 1, 5))
    wire.sink.task_received("other", 1, TaskRequest("hub", "t2", 1, "chat", MODEL, "{}"), _Reply())
    assert agent.stats()["events"]["foreign_messages"] == 3
    assert agent.status().active == 1
    await agent.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_no_room_for_an_answer_is_waited_for_and_not_spun_upon(stream: bool) -> None:
    agent, wire = await agent_of(_Engine(lambda task: _yields(Delta("x" * 1000))))
    reply = _Reply(full=4)
    ask(wire, reply, stream=stream)
    for _ in range(300):
        await asyncio.sleep(0)
    assert reply.tries <= 3
    assert "".join(text for chunk in [await asyncio.wait_for(reply.final, PATIENCE)] for text in chunk.deltas) in (
        "",
        "x" * 1000,
    )
    await agent.close()


async def test_a_final_chunk_that_is_too_large_becomes_an_error_even_when_there_is_no_room_for_that_yet() -> None:
    agent, wire = await agent_of(_Engine(lambda task: _yields(Delta("x" * 10_000))))

    class Reply(_Reply):
        def send(self, chunk: Chunk) -> None:
            if self.tries == 1:
                self.full = 3
            super().send(chunk)

    reply = Reply(limit=1000)
    ask(wire, reply, stream=False)
    error = await reply.error()
    assert isinstance(error, errors.EngineFailed)
    assert "over 1000" in str(error)
    await agent.close()


async def test_a_reply_that_raises_what_it_may_not_ends_the_task_with_an_error() -> None:
    agent, wire = await agent_of(_Engine(lambda task: _yields(Delta("text"))))
    reply = _Reply(broken=1)
    ask(wire, reply, stream=False)
    assert isinstance(await reply.error(), errors.EngineFailed)
    assert agent.status().active == 0
    await agent.close()


@pytest.mark.parametrize("credit", [64, 1], ids=["before an extra", "last credit"])
async def test_text_that_cannot_be_sent_ends_its_task_and_does_not_stop_the_event_loop(credit: int) -> None:
    agent, wire = await agent_of(_Engine(lambda task: _yields(Delta("x" * 1000), Delta("y", extra="[]"))))

    reply = _Reply(limit=500)
    request = TaskRequest("hub", "t", 1, "chat", MODEL, "{}", True, credit=credit)
    wire.sink.task_received("hub", 1, request, reply)
    assert isinstance(await reply.error(), errors.PayloadTooLarge)
    assert reply.tries == 2
    assert agent.status().active == 0
    await agent.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_cancellation_that_is_the_engines_own_fails_the_task_and_frees_the_slot(stream: bool) -> None:
    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("text")
        inner = asyncio.get_running_loop().create_future()
        inner.cancel()
        await inner

    agent, wire = await agent_of(_Engine(run))
    reply = _Reply()
    ask(wire, reply, stream=stream)
    assert isinstance(await reply.error(), errors.EngineFailed)
    assert agent.status().active == 0
    await agent.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_an_engine_that_yields_nothing_for_ever_lets_others_run(stream: bool) -> None:
    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        for _ in range(1_000_000):
            yield Delta()

    agent, wire = await agent_of(_Engine(run))
    reply = _Reply()
    request = ask(wire, reply, stream=stream)
    await asyncio.sleep(0.01)
    wire.sink.cancel_received("hub", 1, Cancel(request.hub_id, request.task_id, request.attempt, "enough"))
    assert isinstance(await reply.error(), errors.TaskCancelled)
    await agent.close()


async def test_a_second_cancel_does_not_break_into_the_cleaning_up_of_the_engine() -> None:
    cleaned = asyncio.get_running_loop().create_future()

    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        try:
            await asyncio.get_running_loop().create_future()
            yield Delta()
        finally:
            await asyncio.sleep(0.02)
            cleaned.set_result(True)

    agent, wire = await agent_of(_Engine(run))
    reply = _Reply()
    request = ask(wire, reply)
    await asyncio.sleep(0.01)
    for _ in range(3):
        wire.sink.cancel_received("hub", 1, Cancel(request.hub_id, request.task_id, request.attempt, "enough"))
        await asyncio.sleep(0)
    wire.sink.hub_lost("hub", 1, "gone")
    assert isinstance(await reply.error(), errors.TaskCancelled)
    assert cleaned.done()
    await agent.close()


async def test_a_reply_that_raises_at_an_acceptance_leaves_the_heartbeat_alone() -> None:
    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.get_running_loop().create_future()
        yield Delta()

    clock = SimulatedClock()
    agent, wire = await agent_of(_Engine(run), slots=2, clock=clock)
    broken, fine = _Reply(broken=5), _Reply()
    ask(wire, broken, "broken")
    ask(wire, fine, "fine")
    await asyncio.sleep(0)
    clock.advance(1)
    assert len(fine.chunks) == 1
    assert agent.boundary.failures["transport.send"] == 1
    await agent.close()


@pytest.mark.parametrize(
    "odd",
    [{"queued": -1}, {"resources": {"x": "text"}}, {"resources": {5: 1.0}}, {"resources": {"x": float("nan")}}],
    ids=str,
)
async def test_a_status_that_no_wire_could_carry_is_reported_as_failed(odd: Any) -> None:
    agent, _ = await agent_of(_Engine(_yields, lambda: EngineStatus("ready", offers(MODEL), **odd)))
    status = agent.status()
    assert (status.state, status.queued) == ("failed", 0)
    assert "out of bounds" in status.detail
    assert all(isinstance(value, int | float) for value in status.resources.values())
    await agent.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_what_an_engine_waits_for_is_no_time_of_its_work(stream: bool) -> None:
    clock = SimulatedClock()

    async def run(task: TaskRequest) -> AsyncGenerator[Any, None]:
        yield EngineProgress("loading", MODEL)
        clock.advance(7)
        yield EngineProgress("running")
        clock.advance(2)
        yield Delta("one")
        clock.advance(1)
        yield EngineProgress("tool", "search")
        yield EngineProgress("running")
        yield Delta("two")

    agent, wire = await agent_of(_Engine(run), clock=clock)
    reply = _Reply()
    ask(wire, reply, stream=stream)
    final = await asyncio.wait_for(reply.final, PATIENCE)
    assert not final.error
    assert round((final.started_ns - final.received_ns) / 1e9) == 7, "the load"
    assert round((final.first_ns - final.started_ns) / 1e9) == 2, "the work until the first token"
    await agent.close()


async def test_what_an_engine_yields_without_waiting_is_sent_together_as_soon_as_it_waits() -> None:
    seen: list[tuple[str, ...]] = []
    reply = _Reply()
    loop = asyncio.get_running_loop()

    def look(waits: asyncio.Future[None]) -> None:
        seen.extend(each.deltas for each in reply.chunks)
        waits.set_result(None)

    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        waits = loop.create_future()
        loop.call_soon(look, waits)  # comes before all that is scheduled from here on
        yield Delta("one")
        yield Delta("two")
        await waits
        yield Delta("three")

    agent, wire = await agent_of(_Engine(run))
    ask(wire, reply)
    final = await asyncio.wait_for(reply.final, PATIENCE)
    assert seen == [("one", "two")]
    assert final.deltas == ("three",)
    await agent.close()


async def test_a_token_that_cannot_be_sent_stops_an_engine_that_waits() -> None:
    ended = asyncio.Event()

    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        try:
            yield Delta("one")
            await asyncio.Event().wait()
        finally:
            ended.set()

    agent, wire = await agent_of(_Engine(run))
    reply = _Reply(broken=1)
    ask(wire, reply)
    assert isinstance(await reply.error(), errors.TransportError)
    assert ended.is_set()
    assert agent.status().active == 0
    await agent.close()


async def test_a_token_that_cannot_be_sent_does_not_break_into_the_cleaning_up_of_its_engine() -> None:
    cleaned = asyncio.Event()

    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        try:
            yield Delta("one")
            await asyncio.Event().wait()
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            cleaned.set()

    for broken in (1, 2):
        cleaned.clear()
        agent, wire = await agent_of(_Engine(run))
        reply = _Reply(broken=broken)
        ask(wire, reply)
        assert isinstance(await reply.error(), errors.TransportError if broken == 1 else errors.EngineFailed)
        assert cleaned.is_set()
        assert [each.deltas for each in reply.chunks] == [()]
        await agent.close()


async def test_a_stream_that_has_failed_is_forgotten_at_once() -> None:
    """Its request may be large: it must not stay until the next look for cycles."""
    waits: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future()]

    async def run(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("one")
        await waits[0]

    agent, wire = await agent_of(_Engine(run))
    reply = _Reply()
    gc.collect()
    gc.disable()
    try:
        ask(wire, reply)
        await until(lambda: reply.chunks)
        (gone,) = map(weakref.ref, agent._runs.values())
        waits.pop().set_exception(errors.InvalidRequest("no"))
        assert isinstance(await reply.error(), errors.InvalidRequest)
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
        await agent.close()


@pytest.mark.parametrize("credit", [1, 64])
async def test_tokens_that_were_there_at_once_are_told_one_by_one(credit: int) -> None:
    """However many, in the order in which they are given, and within the credit."""
    texts = [f"{number} " for number in range(2 * MAX_DELTAS + 5)]
    together = Delta("".join(texts), parts=(*texts[:9], "", *texts[9:]))
    agent, wire = await agent_of(
        _Engine(lambda task: _yields(Delta("first "), together, Delta("last "), Delta("", finish_reason="length")))
    )
    reply = _Reply()
    wire.sink.task_received("hub", 1, TaskRequest("hub", "t", 1, "chat", MODEL, "{}", True, credit=credit), reply)
    for _ in range(200):
        await asyncio.sleep(0)
        if reply.final.done():
            break
        assert len(reply.chunks) <= credit
        if len(reply.chunks) == credit:
            credit += 1
            wire.sink.credit_received("hub", 1, Credit("hub", "t", 1, 1))
    final = await asyncio.wait_for(reply.final, PATIENCE)
    assert [text for each in reply.chunks for text in each.deltas] == ["first ", *texts, "last "]
    assert all(len(each.deltas) <= MAX_DELTAS for each in reply.chunks)
    assert final.finish_reason == "length"
    assert final.seq + len(final.deltas) == len(texts) + 2
    await agent.close()


async def test_tokens_that_were_there_at_once_make_one_text_of_a_whole_answer() -> None:
    agent, wire = await agent_of(_Engine(lambda task: _yields(Delta("a b ", parts=("a ", "b ")), Delta("c"))))
    reply = _Reply()
    ask(wire, reply, stream=False)
    assert (await asyncio.wait_for(reply.final, PATIENCE)).deltas == ("a b c",)
    await agent.close()


@pytest.mark.parametrize("texts", [1, MAX_DELTAS, 3 * MAX_DELTAS])
async def test_what_was_sent_as_soon_as_there_was_room_is_not_followed_by_an_empty_chunk(texts: int) -> None:
    """It would cost credit that the hub knows nothing of, and gives back never."""
    agent, wire = await agent_of(_Engine(lambda task: _yields(*[Delta("x")] * texts, Delta("y", extra="[]"))))
    reply = _Reply(full=1)
    ask(wire, reply)
    await asyncio.wait_for(reply.final, PATIENCE)
    assert [len(each.deltas) for each in reply.chunks] == [min(texts, MAX_DELTAS)] * -(-texts // MAX_DELTAS) + [1, 0]
    await agent.close()
