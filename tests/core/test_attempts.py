"""Attempts: exact cancels, slots until the engine has ended, progress timeouts, hedges, and who may say what."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from anywire import errors
from anywire.builtin.least_loaded import LeastLoaded
from anywire.identity import hub_info
from anywire.messages import AgentStatus, Cancel, Chunk
from anywire.pipeline.attempts.decide import Decision, Hedge, Retry, decide
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import Outcome
from anywire.selector import SelectorConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, fifo
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]


def chat(pipeline: Orchestrator, *, stream: bool = True, **settings: Any) -> Any:
    return pipeline.submit(Submission("chat", MODEL, "{}", stream, **settings))


class _Observing(LeastLoaded):
    def __init__(self) -> None:
        super().__init__(SelectorConfig())
        self.outcomes: list[Outcome] = []
        self.asked = 0
        self.hold = False

    def select(self, task: Any, candidates: Any) -> Any:
        self.asked += 1
        return None if self.hold else super().select(task, candidates)

    def observed(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class _First(LeastLoaded):
    """Of the idlest agents the one that joined first."""

    def select(self, task: Any, candidates: Any) -> Any:
        return min(candidates, key=lambda agent: (agent.in_flight, agent.ordinal))


async def started(
    wire: PuppetTransport,
    clock: SimulatedClock,
    selector: Any = None,
    queue: int = 100,
    decision: Any = decide,
    **more: Any,
) -> Orchestrator:

    pipeline = Orchestrator(
        hub_info("hub"),
        [wire],
        fifo(queue),
        _First(SelectorConfig()) if selector is None else selector,
        config=PipelineConfig(**{"retries": {"base": 0}, **more}),
        clock=clock,
        decide=decision,
    )
    await pipeline.start()
    return pipeline


# Slots and cancels


async def test_a_cancelled_attempt_keeps_its_slot_until_its_engine_has_ended(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    first, second = chat(pipeline), chat(pipeline)
    request = wire.requests[0][1]
    first.cancel("not wanted")
    assert wire.cancels() == [Cancel("hub", request.task_id, 1, "not wanted")]
    assert len(wire.requests) == 1
    with pytest.raises(errors.TaskCancelled):
        await read(first)
    wire.stop(request)
    assert len(wire.requests) == 2
    wire.answer(wire.requests[1][1])
    assert await read(second) == "answer"


async def test_what_a_cancelled_attempt_still_says_is_not_shown(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    stream = chat(pipeline)
    request = wire.requests[0][1]
    stream.cancel("not wanted")
    wire.chunk(request, 0, "late")
    wire.chunk(request, 1, "later", final=True)
    with pytest.raises(errors.TaskCancelled):
        await read(stream)
    assert pipeline.agents()[0].in_flight == 0
    assert not pipeline.attempts.open


async def test_the_slot_of_a_cancelled_attempt_is_free_when_its_link_is_lost(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    chat(pipeline).cancel("not wanted")
    wire.lose("a")
    assert not pipeline.attempts.open
    wire.join("a", slots=1)
    assert wire.cancels()[-1].reason == "link lost", "it is asked again when it is back"


# Progress


async def test_an_agent_that_does_not_accept_in_two_leases_loses_the_task(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await started(wire, clock)
    wire.join("liar", slots=1000, lease_ms=1000)
    stream = chat(pipeline, stream=False)
    wire.join("honest")
    clock.advance(1.9)
    assert len(wire.requests) == 1
    clock.advance(0.4)
    assert [agent for agent, _ in wire.requests] == ["liar", "honest"]
    assert wire.cancels()[0].attempt == 1
    wire.answer(wire.requests[1][1])
    assert await read(stream) == "answer"
    assert {agent.agent_id: agent.in_flight for agent in pipeline.agents()} == {"liar": 1, "honest": 0}


async def test_a_whole_answer_may_take_its_time_once_it_is_accepted(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await started(wire, clock, first_token_timeout=1.0, next_token_timeout=1.0)
    wire.join("a")
    stream = chat(pipeline, stream=False)
    wire.accept(wire.requests[0][1])
    clock.advance(300)
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"


async def test_first_and_next_token_have_their_times(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock, first_token_timeout=5.0, next_token_timeout=3.0, max_attempts=2)
    wire.join("a")
    stream = chat(pipeline)
    wire.accept(wire.requests[0][1])
    clock.advance(5.5)
    first, second = (request for _, request in wire.requests)
    assert (first.attempt, second.attempt) == (1, 2)
    wire.accept(second)
    wire.chunk(second, 0, "begun")
    clock.advance(2.5)
    wire.chunk(second, 1, " and going")
    clock.advance(2.5)
    assert len(wire.cancels()) == 1
    clock.advance(1.5)
    with pytest.raises(errors.NoProgress, match=r"no further token within 3 s \(pipeline.next_token_timeout\)"):
        await read(stream)


async def test_an_agent_without_credit_is_not_hurried(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock, window=2, next_token_timeout=3.0, reader_timeout=100.0)
    wire.join("a")
    stream = chat(pipeline)
    request = wire.requests[0][1]
    wire.chunk(request, 0, "1")
    wire.chunk(request, 1, "2")
    clock.advance(20)
    assert not wire.cancels()
    assert [(await anext(stream)).deltas for _ in range(2)] == [("1",), ("2",)]
    clock.advance(2)
    assert not wire.cancels()
    clock.advance(2)
    assert wire.cancels()


async def test_a_pause_of_the_hub_is_nobodys_silence(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock, next_token_timeout=3.0)
    wire.join("a")
    fresh, begun = chat(pipeline), chat(pipeline)
    wire.chunk(wire.requests[1][1], 0, "begun ")
    clock.pause(60)
    clock.advance(0.2)
    assert not wire.cancels()
    wire.answer(wire.requests[0][1])
    wire.chunk(wire.requests[1][1], 1, "and ended", final=True)
    assert (await read(fresh), await read(begun)) == ("answer", "begun and ended")


async def test_acceptance_takes_no_credit_and_is_not_shown(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, window=2)
    wire.join("a")
    stream = chat(pipeline)
    request = wire.requests[0][1]
    for _ in range(5):
        wire.accept(request)
    wire.chunk(request, 0, "1")
    wire.chunk(request, 1, "2")
    wire.chunk(request, 2, "3", final=True)
    assert [chunk.deltas async for chunk in stream] == [("1",), ("2",), ("3",)]


# Two attempts at once


def hedging(task: Any, attempt: Any, error: errors.AnywireError, health: Any, budget: Any) -> Decision:
    if isinstance(error, errors.NoProgress) and not task.chunks:
        return Hedge()
    return decide(task, attempt, error, health, budget)


@pytest.mark.parametrize("quicker", [0, 1])
async def test_of_two_attempts_the_first_to_bring_a_token_is_shown(
    wire: PuppetTransport, clock: SimulatedClock, quicker: int
) -> None:
    pipeline = await started(wire, clock, decision=hedging)
    wire.join("a")
    wire.join("b")
    stream = chat(pipeline)
    clock.advance(2.5)
    assert [(agent, request.attempt) for agent, request in wire.requests] == [("a", 1), ("b", 2)]
    assert not wire.cancels()
    mine, other = wire.requests[quicker][1], wire.requests[1 - quicker][1]
    wire.chunk(mine, 0, "mine ")
    assert [(cancel.task_id, cancel.attempt) for cancel in wire.cancels()] == [(other.task_id, other.attempt)]
    wire.chunk(other, 0, "late ")
    wire.chunk(mine, 1, "alone", final=True)
    assert await read(stream) == "mine alone"
    assert (stream.agent_id, stream.attempts) == ("ab"[quicker], mine.attempt)
    wire.stop(other)
    assert [agent.in_flight for agent in pipeline.agents()] == [0, 0]


async def test_a_hedge_carries_on_when_the_first_attempt_fails(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock, decision=hedging)
    wire.join("a")
    wire.join("b")
    stream = chat(pipeline)
    clock.advance(2.5)
    wire.lose("a")
    wire.answer(wire.requests[1][1])
    assert await read(stream) == "answer"
    assert len(wire.requests) == 2


async def test_a_retry_may_wait(wire: PuppetTransport, clock: SimulatedClock) -> None:
    def later(*arguments: Any) -> Decision:
        return Retry(after=5.0)

    pipeline = await started(wire, clock, decision=later)
    wire.join("a")
    stream = chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    clock.advance(4.9)
    assert len(wire.requests) == 1
    assert pipeline.waiting == 1
    clock.advance(0.2)
    wire.answer(wire.requests[1][1])
    assert await read(stream) == "answer"


# What was sent, and what was not


async def test_a_send_that_failed_is_no_answer(wire: PuppetTransport, clock: SimulatedClock) -> None:
    selector = _Observing()
    pipeline = await started(wire, clock, selector)
    wire.join("a", slots=1)
    wire.fail_next = errors.Congested("full")
    congested = chat(pipeline)
    assert selector.outcomes == []
    await asyncio.sleep(0)
    wire.answer(wire.requests[0][1])
    assert await read(congested) == "answer"
    wire.fail_next = errors.PayloadTooLarge("limit 5")
    with pytest.raises(errors.PayloadTooLarge):
        await read(chat(pipeline))
    assert [outcome.error for outcome in selector.outcomes] == ["", "payload_too_large"]
    assert (pipeline.agents()[0].completed, pipeline.agents()[0].failed) == (1, 1)


async def test_a_drain_that_returns_while_there_is_no_room_is_not_asked_every_turn(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await started(wire, clock)
    wire.join("a", slots=1)
    tries = 0

    def full(agent_id: str, message: Any) -> None:
        nonlocal tries
        if not isinstance(message, Cancel):
            tries += 1
            raise errors.Congested("always")

    wire.send = full  # type: ignore[method-assign]
    stream = chat(pipeline)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert tries <= 2
    for _ in range(30):
        clock.advance(1.0)
        for _ in range(5):
            await asyncio.sleep(0)
    assert 10 < tries < 50
    stream.cancel("enough")
    await pipeline.close()


async def test_nothing_is_sent_after_the_gate(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock)
    wire.join("a", slots=1)
    running, queued = chat(pipeline), chat(pipeline)
    pipeline.close_gate()
    with pytest.raises(errors.ShuttingDown):
        await read(queued)
    with pytest.raises(errors.ShuttingDown):
        chat(pipeline)
    wire.join("b")
    wire.answer(wire.requests[0][1])
    assert await read(running) == "answer"
    lost = len(wire.requests)
    assert lost == 1


async def test_an_attempt_lost_after_the_gate_is_not_sent_again(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock)
    wire.join("a")
    wire.join("b")
    running = chat(pipeline)
    pipeline.close_gate()
    wire.lose("a")
    with pytest.raises(errors.ShuttingDown):
        await read(running)
    assert len(wire.requests) == 1


async def test_held_tasks_count_for_the_queue_and_are_not_asked_about_at_every_heartbeat(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    selector = _Observing()
    selector.hold = True
    pipeline = await started(wire, clock, selector, queue=5)
    wire.join("a")
    streams = [chat(pipeline) for _ in range(5)]
    with pytest.raises(errors.QueueFull):
        chat(pipeline)
    asked = selector.asked
    for active in range(100):
        wire.report("a", active=active % 3)
    assert selector.asked == asked
    clock.advance(1.1)
    assert selector.asked == asked + 5
    selector.hold = False
    wire.join("b")
    assert len(wire.requests) == 5
    for stream, (_, request) in zip(streams, wire.requests, strict=True):
        wire.answer(request)
        assert await read(stream) == "answer"


async def test_links_that_are_all_gone_at_once_cost_no_attempts(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock, max_attempts=2)
    for name in "abcde":
        wire.join(name)
    stream = chat(pipeline)
    really_send = wire.send

    def gone(agent_id: str, message: Any) -> None:
        raise errors.AgentUnavailable(f"{agent_id} is not joined")

    wire.send = gone  # type: ignore[method-assign]
    for name in "abcde":
        wire.lose(name)
    wire.send = really_send  # type: ignore[method-assign]
    for name in "abcde":
        wire.join(name)
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"


# Who said it


async def test_nobody_speaks_for_another_agent(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", incarnation=7)
    wire.join("b")
    stream = chat(pipeline)
    request = wire.requests[0][1]
    wire.speak("b", 1, request, 0, "forged", final=True)
    wire.speak("a", 6, request, 0, "of an older life", final=True)
    wire.sink.agent_reported("b", 1, AgentStatus("a", 7, "failed"))
    wire.sink.send_failed("b", 1, request.task_id, 1, errors.AgentLost("forged"))
    assert pipeline.agents()[0].status.state == "ready"
    wire.speak("a", 7, request, 0, "true", final=True)
    assert await read(stream) == "true"
    assert pipeline.stats()["events"]["foreign_messages"] == 3
    assert pipeline.stats()["events"]["claims_rejected"] == 1


def test_task_ids_cannot_be_guessed(wire: PuppetTransport, clock: SimulatedClock) -> None:
    async def ids() -> set[str]:
        pipeline = await started(wire, clock, queue=2000)
        return {chat(pipeline).task_id for _ in range(1000)}

    found = asyncio.run(ids())
    assert len({task_id[:8] for task_id in found}) > 990
    assert all(len(task_id) >= 24 for task_id in found)


async def test_a_notice_of_the_wire_is_acted_on_and_the_agent_is_asked_to_stop(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=1)
    wire.join("b", slots=1)
    stream = chat(pipeline)
    request = wire.requests[0][1]
    notice = errors.AgentLost("nothing of it for 1 s", phase="maybe_sent")
    wire.sink.send_failed("a", 1, request.task_id, 1, notice)
    assert [(cancel.task_id, cancel.attempt) for cancel in wire.cancels()] == [(request.task_id, 1)]
    assert wire.requests[1][0] == "b"
    assert pipeline.registry.agent("a").in_flight == 1
    wire.answer(wire.requests[1][1])
    assert await read(stream) == "answer"
    expired = errors.Refused("not taken in time", phase="not_sent")
    other = chat(pipeline)
    again = wire.requests[2][1]
    wire.sink.send_failed(*wire.receiver(again), again.task_id, again.attempt, expired)
    assert pipeline.registry.agent("b").in_flight == 0
    other.cancel("enough")


# Times


async def test_latency_of_whole_answers_is_that_of_their_first_token(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await started(wire, clock)
    wire.join("a")
    stream = chat(pipeline, stream=False)
    request = wire.requests[0][1]
    wire.accept(request)
    clock.advance(10.0)
    final = Chunk(
        "hub", request.task_id, 1, 0, ("text",), final=True, received_ns=1, first_ns=5, last_ns=5 + 9_500_000_000
    )
    wire.sink.chunk_received("a", 1, final)
    assert await read(stream) == "text"
    assert pipeline.agents()[0].latency_ema_ms == pytest.approx(500.0)


async def test_an_agent_that_only_fails_is_not_the_quickest(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock, max_attempts=1)
    wire.join("bad")
    stream = chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    with pytest.raises(errors.EngineFailed):
        await read(stream)
    wire.join("good")
    ordered = sorted(pipeline.agents(), key=lambda agent: agent.latency_ema_ms)
    assert [agent.agent_id for agent in ordered] == ["good", "bad"]


async def test_agent_wait_counts_from_the_newest_absence(wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await started(wire, clock, agent_wait=5.0)
    stream = chat(pipeline)
    clock.advance(4.0)
    wire.join("a", slots=0)
    clock.advance(4.0)
    wire.lose("a")
    clock.advance(4.0)
    wire.join("a", slots=1)
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"


# Probes, readers that stop, and acceptances without end


def failed(wire: PuppetTransport) -> None:
    wire.chunk(wire.requests[-1][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))


@pytest.mark.parametrize("end", ["cancelled", "congested"])
async def test_a_probe_that_says_nothing_is_made_again(wire: PuppetTransport, clock: SimulatedClock, end: str) -> None:
    pipeline = await started(wire, clock, breaker={"errors": 1}, max_attempts=1)
    wire.join("a")
    wire.join("b")
    chat(pipeline)
    failed(wire)
    assert wire.requests[-1][0] == "a"
    clock.advance(1.1)
    if end == "congested":
        wire.fail_next = errors.Congested("no room")
        chat(pipeline)
        await asyncio.sleep(0.01)
    else:
        stream = chat(pipeline)
        assert wire.requests[-1][0] == "a"
        stream.cancel("not wanted any more")
        wire.stop(wire.requests[-1][1])
    before = len(wire.requests)
    for _ in range(3):
        chat(pipeline)
    assert "a" in [agent for agent, _ in wire.requests[before:]]


@pytest.mark.parametrize("first", [1, 31, 45], ids=str)
async def test_a_reader_that_stops_after_a_few_chunks_is_stalled_like_any_other(
    wire: PuppetTransport, clock: SimulatedClock, first: int
) -> None:
    pipeline = await started(wire, clock, reader_timeout=20)
    wire.join("a")
    stream = chat(pipeline)
    request = wire.requests[-1][1]
    for seq in range(64):
        wire.chunk(request, seq, "x")
    for _ in range(first):
        await stream.__anext__()
    for seq in range(64, 64 + sum(credit.chunks for credit in wire.credits())):
        wire.chunk(request, seq, "x")
    for _ in range(190):
        clock.advance(0.1)
    assert not wire.cancels()
    for _ in range(20):
        clock.advance(0.1)
    with pytest.raises(errors.ReaderStalled):
        await read(stream)


@pytest.mark.parametrize("begun", [False, True], ids=["accepted", "streaming"])
async def test_chunks_that_bring_nothing_are_no_progress(
    wire: PuppetTransport, clock: SimulatedClock, begun: bool
) -> None:
    pipeline = await started(wire, clock, first_token_timeout=5, next_token_timeout=5, max_attempts=1)
    wire.join("a")
    stream = chat(pipeline)
    request = wire.requests[-1][1]
    wire.chunk(request, 0, *["x"] * begun)
    for _ in range(120):
        clock.advance(0.05)
        wire.chunk(request, int(begun))
    with pytest.raises(errors.NoProgress):
        await asyncio.wait_for(read(stream), 1)


# Another `decide`


@pytest.mark.parametrize("nonsense", [None, "retry", Retry(-1), Retry(float("nan")), Retry("soon"), ValueError()])  # type: ignore[arg-type]
async def test_a_decide_that_fails_is_replaced_by_the_built_in_one(
    wire: PuppetTransport, clock: SimulatedClock, nonsense: Any
) -> None:
    def odd(*arguments: Any) -> Any:
        if isinstance(nonsense, Exception):
            raise nonsense
        return nonsense

    pipeline = await started(wire, clock, decision=odd)
    wire.join("a")
    wire.join("b")
    stream = chat(pipeline)
    wire.lose("a")
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"
    assert pipeline.stats()["plugin_failures"] == {"decide.odd": 1}


@pytest.mark.parametrize("decision", [Retry(), Hedge()], ids=["retry", "hedge"])
@pytest.mark.parametrize("resume", [False, True])
async def test_no_decision_shows_text_twice(
    wire: PuppetTransport, clock: SimulatedClock, decision: Decision, resume: bool
) -> None:
    pipeline = await started(wire, clock, decision=lambda *_: decision, resume=resume, next_token_timeout=1)
    for agent in "ab":
        wire.join(agent, capabilities=("chat", "resume"))
    stream = chat(pipeline)
    first = wire.requests[-1][1]
    wire.chunk(first, 0, "A ")
    clock.advance(1.5)
    wire.chunk(first, 1, "B ")
    if len(wire.requests) == 1:
        with pytest.raises(errors.NoProgress):
            await read(stream)
        return
    second = wire.requests[-1][1]
    assert second.resume == "A "
    wire.chunk(second, 0, "B ")
    wire.chunk(second, 1, "C", final=True)
    assert await read(stream) == "A B C"


async def test_the_reader_has_its_answer_before_a_recovered_agent_is_chosen_again(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    waiting: list[int] = []

    class Looking(LeastLoaded):
        def select(self, task: Any, candidates: Any) -> Any:
            if streams:
                waiting.append(streams[0].waiting)
            return super().select(task, candidates)

    streams: list[Any] = []
    pipeline = await started(wire, clock, Looking(SelectorConfig()), breaker={"errors": 1}, max_attempts=1)
    wire.join("a", slots=2)
    chat(pipeline)
    failed(wire)
    clock.advance(1.1)
    streams.append(chat(pipeline))
    probe = wire.requests[-1][1]
    wire.join("b", slots=1)
    chat(pipeline)
    chat(pipeline)
    waiting.clear()
    wire.answer(probe)
    assert waiting == [1]
