"""Hedging, case by case: when a stream is late, where its second attempt goes, and what comes of the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.test_attempts import started

from anywire import errors
from anywire.builtin.least_loaded import LeastLoaded
from anywire.messages import AgentInfo, Cancel, TaskRequest
from anywire.pipeline.attempts.decide import Decision, Hedge
from anywire.pipeline.attempts.first_tokens import KEPT, LEAST, FirstTokens
from anywire.pipeline.orchestrator import Orchestrator
from anywire.selector import SelectorConfig
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]

USUAL = 0.1
"""Seconds to the first token of streams that are not late."""
LATE = 0.11
ALL: dict[str, Any] = {"share": 1.0}


def join(wire: PuppetTransport, agent: str, host: str = "", **more: Any) -> None:
    capabilities = more.pop("capabilities", ("chat",))
    wire.join(agent, info=AgentInfo(agent, 1, host=host, capabilities=capabilities, lease_ms=1000), **more)


def chat(pipeline: Orchestrator, **settings: Any) -> TaskStream:
    return pipeline.submit(Submission("chat", settings.pop("model", MODEL), "{}", True, **settings))


def learn(pipeline: Orchestrator, wire: PuppetTransport, clock: SimulatedClock, streams: int = LEAST) -> None:
    """Let so many streams have their first token in the usual time, at whichever agent gets them."""
    for _ in range(streams):
        chat(pipeline)
        clock.advance(USUAL)
        wire.answer(wire.requests[-1][1])


async def pair(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, **settings: Any
) -> tuple[Orchestrator, TaskStream, TaskRequest, TaskRequest]:
    """A late stream and its two attempts, on the agents a and b."""
    settings.setdefault("hedging", ALL)
    pipeline = await pipeline_of(wire, **settings)
    join(wire, "a", "one")
    learn(pipeline, wire, clock)
    stream = chat(pipeline)
    join(wire, "b", "two")
    clock.advance(LATE)
    (one, first), (other, second) = wire.requests[-2:]
    assert (one, other, first.task_id) == ("a", "b", second.task_id)
    return pipeline, stream, first, second


def counted(pipeline: Orchestrator) -> tuple[int, int]:
    events = pipeline.stats()["events"]
    return events.get("hedges", 0), events.get("hedges_won", 0)


def in_flight(pipeline: Orchestrator) -> list[int]:
    return [agent.in_flight for agent in pipeline.agents()]


# Who wins


async def test_the_second_attempt_brings_the_first_token(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline, stream, first, second = await pair(pipeline_of, wire, clock)
    assert counted(pipeline) == (1, 0)
    assert second.attempts_left == 1, "it is sent no further time"
    wire.chunk(second, 0, "quick ")
    (cancel,) = wire.cancels()
    assert (cancel.task_id, cancel.attempt) == (first.task_id, first.attempt)
    wire.chunk(first, 0, "late ")
    wire.chunk(second, 1, "one", final=True)
    assert await read(stream) == "quick one"
    assert (stream.agent_id, stream.attempts) == ("b", second.attempt)
    assert in_flight(pipeline) == [1, 0], "a slot is taken until its agent has ended"
    clock.advance(0.39)
    wire.stop(first)
    assert in_flight(pipeline) == [0, 0]
    assert counted(pipeline) == (1, 1)
    assert pipeline.stats()["hedging"]["wasted_s"] == pytest.approx(0.5)
    assert [agent.failed for agent in pipeline.agents()] == [0, 0]


async def test_the_first_attempt_does_and_what_the_other_made_is_counted(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline, stream, first, second = await pair(pipeline_of, wire, clock)
    clock.advance(0.2)
    wire.answer(first, "mine")
    assert await read(stream) == "mine"
    assert [cancel.attempt for cancel in wire.cancels()] == [second.attempt]
    wire.chunk(second, 3, final=True, error=errors.to_wire(errors.TaskCancelled("stopped")))
    assert counted(pipeline) == (1, 0)
    assert pipeline.stats()["hedging"] == {"wasted_s": pytest.approx(0.21), "wasted_tokens": 3}


@pytest.mark.parametrize("claimed", [-5, 10**30])
async def test_a_loser_that_lies_about_its_tokens_spoils_no_count(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, claimed: int
) -> None:
    pipeline, _, first, second = await pair(pipeline_of, wire, clock)
    wire.answer(first)
    wire.chunk(second, claimed, final=True, error=errors.to_wire(errors.TaskCancelled("stopped")))
    assert 0 <= pipeline.stats()["hedging"]["wasted_tokens"] <= 2**31


@pytest.mark.parametrize("error", [errors.TaskCancelled("stopped"), errors.EngineFailed("broken")])
async def test_the_loser_s_end_and_the_winner_s_first_token_come_together(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, error: errors.AnywireError
) -> None:
    pipeline, stream, first, second = await pair(pipeline_of, wire, clock)
    wire.chunk(second, 0, "quick ")
    wire.chunk(first, 0, final=True, error=errors.to_wire(error))
    wire.chunk(second, 1, "one", final=True)
    assert await read(stream) == "quick one"
    assert in_flight(pipeline) == [0, 0]
    assert [agent.failed for agent in pipeline.agents()] == [0, 0], "what it says after its cancel is nobody's failure"


# What does not go well


async def test_the_first_attempt_fails_and_the_second_goes_on(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline, stream, _, second = await pair(pipeline_of, wire, clock)
    wire.lose("a")
    assert wire.requests[-1][1] is second, "nothing is sent again"
    (view,) = pipeline.tasks()
    assert (view.agent_id, view.attempt) == ("b", second.attempt)
    wire.answer(second)
    assert await read(stream) == "answer"
    assert pipeline.stats()["events"].get("retries", 0) == 0
    assert counted(pipeline) == (1, 1)


async def refuses(wire: PuppetTransport, second: TaskRequest) -> None:
    wire.chunk(second, 0, final=True, error=errors.to_wire(errors.Refused("busy")))


async def fails(wire: PuppetTransport, second: TaskRequest) -> None:
    wire.chunk(second, 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))


async def is_lost(wire: PuppetTransport, second: TaskRequest) -> None:
    wire.lose("b")


@pytest.mark.parametrize("ends", [refuses, fails, is_lost])
async def test_the_second_attempt_fails_and_the_first_goes_on(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, ends: Callable[..., Any]
) -> None:
    pipeline, stream, first, second = await pair(pipeline_of, wire, clock)
    await ends(wire, second)
    clock.advance(1)
    assert wire.requests[-1][1] is second, "it is hedged once"
    assert not [each for each in wire.cancels() if each.attempt == first.attempt]
    wire.answer(first)
    assert await read(stream) == "answer"
    assert pipeline.stats()["events"].get("retries", 0) == 0
    assert counted(pipeline) == (1, 0)


@pytest.mark.parametrize("error", [errors.Congested("full"), errors.AgentUnavailable("gone", phase="not_sent")])
async def test_a_hedge_that_could_not_be_sent_is_none(
    pipeline_of: Make,
    wire: PuppetTransport,
    clock: SimulatedClock,
    monkeypatch: pytest.MonkeyPatch,
    error: errors.AnywireError,
) -> None:
    pipeline = await pipeline_of(wire, hedging=ALL)
    join(wire, "a", "one")
    learn(pipeline, wire, clock)
    stream = chat(pipeline)
    join(wire, "b", "two")
    tries: list[str] = []
    send = wire.send

    def failing(agent_id: str, message: Any) -> None:
        if isinstance(message, TaskRequest):
            tries.append(agent_id)
            raise error
        send(agent_id, message)

    monkeypatch.setattr(wire, "send", failing)
    clock.advance(LATE)
    assert tries == ["b"]
    assert counted(pipeline) == (0, 0)
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"
    assert in_flight(pipeline) == [0, 0]


async def test_both_fail_and_that_is_one_failure_of_the_task(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline, stream, first, second = await pair(pipeline_of, wire, clock, max_attempts=2)
    join(wire, "c")
    for request in (first, second):
        wire.chunk(request, 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    agent, third = wire.requests[-1]
    assert (agent, third.attempt) == ("c", 3)
    assert pipeline.stats()["events"]["retries"] == 1
    wire.chunk(third, 0, final=True, error=errors.to_wire(errors.EngineFailed("broken too")))
    with pytest.raises(errors.EngineFailed, match="broken too"):
        await read(stream)
    assert stream.spent == 2, "a hedge counts as no attempt"


async def test_no_task_is_hedged_twice(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline, stream, first, second = await pair(pipeline_of, wire, clock, max_attempts=9, accept_timeout=100)
    join(wire, "c")
    for request in (first, second):
        wire.chunk(request, 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    third = wire.requests[-1][1]
    join(wire, "d")
    clock.advance(10 * LATE)
    assert wire.requests[-1][1] is third
    assert counted(pipeline) == (1, 0)
    stream.cancel("enough")


@pytest.mark.parametrize("way", ["reader", "deadline"])
async def test_a_task_that_ends_meanwhile_ends_both(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, way: str
) -> None:
    pipeline, stream, first, second = await pair(pipeline_of, wire, clock, deadline=5.0, accept_timeout=60)
    if way == "reader":
        stream.cancel("not wanted")
    else:
        clock.advance(5)
    assert sorted(cancel.attempt for cancel in wire.cancels()) == [first.attempt, second.attempt]
    with pytest.raises(errors.TaskCancelled if way == "reader" else errors.DeadlineExceeded):
        await read(stream)
    assert stream.spent == 1
    for request in (second, first):
        wire.stop(request)
    assert in_flight(pipeline) == [0, 0]
    assert counted(pipeline) == (1, 0)


async def test_the_winner_s_agent_dies_later_and_the_loser_s_goes_on_with_the_text(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, hedging=ALL, retries={"base": 0.5})
    join(wire, "a", "one", capabilities=("chat", "resume"))
    learn(pipeline, wire, clock)
    stream = chat(pipeline)
    join(wire, "b", "two", capabilities=("chat", "resume"))
    wire._resuming |= {"a", "b"}
    clock.advance(LATE)
    first, second = (request for _, request in wire.requests[-2:])
    wire.chunk(second, 0, "begun ")
    wire.stop(first)
    wire.lose("b")
    agent, third = wire.requests[-1]
    assert (agent, third.attempt, third.resume) == ("a", 3, "begun "), "at once: its agent is free and did not fail"
    wire.chunk(third, 0, "and ended", final=True)
    assert await read(stream) == "begun and ended"
    assert counted(pipeline) == (1, 1)


# When, and where to


async def test_nothing_is_late_before_the_usual_times_are_known(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, hedging=ALL, accept_timeout=100)
    join(wire, "a")
    join(wire, "b")
    learn(pipeline, wire, clock, LEAST - 1)
    stream = chat(pipeline)
    clock.advance(50)
    assert counted(pipeline) == (0, 0)
    stream.cancel("enough")


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ({"attempts_left": 1}, {}),
        ({}, {"max_attempts": 1}),
        ({}, {"retries": {"base": 0, "repeat": ["embedding"]}}),
        ({}, {"hedging": {"share": 0}}),
        ({}, {"hedging": {"share": 1, "least": 10}}),
        ({"avoid": ("b",)}, {}),
    ],
    ids=["last attempt", "one attempt", "not to be repeated", "off", "not before", "avoided"],
)
async def test_what_is_not_hedged(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, task: dict[str, Any], settings: dict[str, Any]
) -> None:
    pipeline = await pipeline_of(wire, **({"hedging": ALL, "accept_timeout": 100} | settings))
    join(wire, "a")
    learn(pipeline, wire, clock)
    stream = chat(pipeline, **task)
    join(wire, "b")
    clock.advance(9)
    assert [agent for agent, _ in wire.requests[LEAST:]] == ["a"]
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"


async def test_a_whole_answer_is_not_hedged(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await pipeline_of(wire, hedging=ALL, accept_timeout=100)
    join(wire, "a")
    join(wire, "b")
    learn(pipeline, wire, clock)
    pipeline.submit(Submission("chat", MODEL, "{}"))
    clock.advance(9)
    assert counted(pipeline) == (0, 0)


async def test_a_stream_that_was_refused_first_is_hedged_all_the_same(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, hedging={"share": 0.05})
    join(wire, "a")
    learn(pipeline, wire, clock)
    chat(pipeline)
    join(wire, "b")
    clock.advance(USUAL / 2)
    await refuses(wire, wire.requests[-1][1])
    wire.report("a")
    join(wire, "c")
    clock.advance(0.9 * USUAL)
    assert [agent for agent, _ in wire.requests[LEAST:]] == ["a", "b"]
    clock.advance(0.2 * USUAL)
    assert [agent for agent, _ in wire.requests[LEAST:]] == ["a", "b", "c"]
    assert counted(pipeline) == (1, 0), "it has counted as one task"


@pytest.mark.parametrize(
    ("agents", "goes_to"),
    [
        (("b near one", "c near two", "d far one"), "c"),
        (("b near one", "d far one"), "d"),
        (("b near one",), "b"),
        ((), ""),
    ],
)
async def test_it_goes_to_another_host_else_over_another_transport(
    pipeline_of: Make, clock: SimulatedClock, agents: tuple[str, ...], goes_to: str
) -> None:
    wires = {"near": PuppetTransport("near"), "far": PuppetTransport("far")}
    pipeline = await pipeline_of(*wires.values(), hedging=ALL)
    join(wires["near"], "a", "one")
    learn(pipeline, wires["near"], clock)
    stream = chat(pipeline)
    for each in agents:
        agent, transport, host = each.split()
        join(wires[transport], agent, host)
    clock.advance(LATE)
    sent = [agent for each in wires.values() for agent, request in each.requests if request.task_id == stream.task_id]
    assert sent == ["a", goes_to][: 1 + bool(goes_to)]
    stream.cancel("enough")


@pytest.mark.parametrize("body", ["{}", '{"models":["other"]}'])
async def test_it_goes_to_the_same_model(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, body: str
) -> None:
    pipeline = await pipeline_of(wire, hedging=ALL, fallbacks={MODEL: ("other",)}, accept_timeout=100)
    join(wire, "a")
    learn(pipeline, wire, clock)
    join(wire, "b", models=("other",))
    stream = pipeline.submit(Submission("chat", MODEL, body, True))
    clock.advance(1)
    assert wire.requests[-1][0] == "a"
    assert counted(pipeline) == (0, 0)
    stream.cancel("enough")


# Plugins in between


class _Meddling(LeastLoaded):
    """Does something while it is asked for the second agent."""

    def __init__(self) -> None:
        super().__init__(SelectorConfig())
        self.meddle: Callable[[], object] = lambda: None

    def select(self, task: Any, candidates: Any) -> Any:
        chosen = super().select(task, candidates)
        self.meddle()
        return chosen


@pytest.mark.parametrize("way", ["cancel", "isolated", "close"])
async def test_a_plugin_that_ends_the_attempt_while_it_is_asked_causes_no_hedge(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, way: str
) -> None:
    selector = _Meddling()
    pipeline: Orchestrator = await pipeline_of(wire, hedging=ALL, selector=selector)
    join(wire, "a")
    learn(pipeline, wire, clock)
    stream = chat(pipeline)
    join(wire, "b")

    def meddle() -> None:
        selector.meddle = lambda: None
        match way:
            case "cancel":
                stream.cancel("by a plugin")
            case "isolated":
                pipeline.order_agent("a", "isolated")
            case "close":
                pipeline.close_gate()

    selector.meddle = meddle
    clock.advance(LATE)
    assert counted(pipeline) == (0, 0)
    sent = [agent for agent, request in wire.requests if request.task_id == stream.task_id]
    assert sent == (["a", "b"] if way == "isolated" else ["a"]), "what is isolated is given to the other agent, once"
    stream.cancel("enough")


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_a_corrupt_stream_is_not_hedged_whoever_decides(
    wire: PuppetTransport, clock: SimulatedClock, share: float
) -> None:
    def always(*arguments: Any) -> Decision:
        return Hedge()

    pipeline = await started(wire, clock, decision=always, hedging={"share": share})
    join(wire, "a")
    join(wire, "b")
    stream = chat(pipeline)
    wire.chunk(wire.requests[0][1], 5, "out of order")
    assert len(wire.requests) == 1
    assert [type(message) for _, message in wire.sent] == [TaskRequest, Cancel]
    with pytest.raises(errors.StreamCorrupted):
        await read(stream)
    await pipeline.close()


async def test_an_attempt_past_its_call_timeout_is_told_once_when_it_is_left_as_it_is(
    wire: PuppetTransport, clock: SimulatedClock
) -> None:
    asked: list[errors.AnywireError] = []

    def hedge(task: Any, attempt: Any, error: errors.AnywireError, *rest: Any) -> Decision:
        asked.append(error)
        return Hedge()

    pipeline = await started(wire, clock, decision=hedge, breaker={"call_timeout": 1.0}, accept_timeout=100)
    join(wire, "a")
    stream = chat(pipeline)
    clock.advance(20)
    assert [type(error) for error in asked] == [errors.NoProgress]
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"
    await pipeline.close()


async def test_only_the_first_attempt_s_progress_is_told(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, hedging=ALL)
    join(wire, "a")
    learn(pipeline, wire, clock)
    stream = chat(pipeline, progress=True)
    join(wire, "b")
    clock.advance(LATE)
    first, second = (request for _, request in wire.requests[-2:])
    wire.progress(first, "loading")
    wire.progress(second, "queued")
    assert stream.progress is not None
    assert (stream.progress.attempt, stream.progress.state) == (first.attempt, "loading")
    stream.cancel("enough")


# The times


def test_a_percentile_is_of_the_newest_times() -> None:
    times = FirstTokens()
    for number in range(LEAST - 1):
        times.note("m", number)
    assert times.percentile("m", 95) is None
    times.note("m", LEAST - 1)
    assert times.percentile("m", 95) == LEAST - 2
    assert times.percentile("m", 50) == LEAST / 2 - 1
    assert times.percentile("other", 50) is None
    for _ in range(KEPT):
        times.note("m", 7.0)
    assert times.percentile("m", 99.9) == 7.0


async def test_of_a_stream_that_was_overtaken_only_the_first_attempt_counts(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """How quick the second one was says nothing of how long streams take that are not late."""
    pipeline, _, _, second = await pair(pipeline_of, wire, clock)
    wire.chunk(second, 0, "quick ")
    ((times, _),) = pipeline.attempts._hedging._first_tokens._models.values()  # type: ignore[union-attr]
    assert list(times) == [pytest.approx(USUAL)] * LEAST + [pytest.approx(LATE)]


async def test_streams_that_were_overtaken_count_as_late_ones(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """Else their times would be missing, and with each of them more of the others would seem late."""
    pipeline = await pipeline_of(wire, hedging={"share": 1, "percentile": 90})
    join(wire, "a", "one")
    learn(pipeline, wire, clock)
    for number in range(40):
        stream = chat(pipeline)
        first = wire.requests[-1][1]
        join(wire, "b", "two")
        clock.advance(0.9 * USUAL if number % 4 else 0.4 - number / 1000)
        quicker = wire.requests[-1][1]
        wire.answer(quicker)
        if quicker is not first:
            wire.stop(first)
        await read(stream)
        wire.lose("b")
    hedges, won = counted(pipeline)
    assert 0 < hedges == won < 10
    chat(pipeline)
    join(wire, "b", "two")
    clock.advance(0.3)
    assert counted(pipeline) == (hedges, won), "of streams of which a quarter is slow, the slow ones are no outliers"
