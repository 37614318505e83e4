"""Fallbacks: models that answer in the place of others, when nobody serves these or their attempts have failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pydantic
import pytest

from anywire import errors, events
from anywire.caller import Caller, Limits
from anywire.messages import AgentStatus
from anywire.offers import Offer, offers_text
from anywire.pipeline.attempts.decide import FallBack
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.clock import SimulatedClock
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]
ABC: dict[str, Any] = {"fallbacks": {"a": ["b", "c"]}}
TOOLS = '{"tools":[{"type":"function"}]}'


def ask(pipeline: Orchestrator, body: str = "{}", stream: bool = True, **more: Any) -> TaskStream:
    return pipeline.submit(Submission("chat", "a", body, stream, **more))


def agent(wire: PuppetTransport, name: str, *models: str, slots: int = 1) -> None:
    wire.join(name, models=models, slots=slots, capabilities=("chat", "resume"))


def sent(wire: PuppetTransport) -> list[tuple[str, str]]:
    """Agent and model of the attempts so far."""
    return [(agent_id, request.model) for agent_id, request in wire.requests]


def fail(wire: PuppetTransport, error: errors.AnywireError | None = None) -> None:
    """Let the newest attempt fail."""
    agent_id, request = wire.requests[-1]
    failure = error or errors.EngineFailed("broken")
    wire.sink.chunk_received(agent_id, 1, wire.final(request, failure))


# Nobody serves it


async def test_a_model_that_nobody_serves_is_answered_by_the_next_one_that_somebody_serves(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    told: list[Any] = []
    pipeline.events.subscribe("test", told.append, events.TaskFellBack, events.TaskDispatched)
    agent(wire, "of c", "c")
    stream = ask(pipeline)
    assert sent(wire) == [("of c", "c")]
    wire.answer(wire.requests[0][1])
    assert (await read(stream), stream.model) == ("answer", "c")
    fell, dispatched = told
    assert (fell.before, fell.model, fell.error, dispatched.model) == ("a", "c", "no_agent", "c")
    record = pipeline.explain(stream.task_id)
    assert record is not None
    assert [each.model for each in record.decisions] == ["c"]
    assert pipeline.stats()["events"]["model_fallbacks"] == 1


async def test_a_busy_model_is_waited_for(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    agent(wire, "of a", "a")
    agent(wire, "of b", "b")
    ask(pipeline)
    second = ask(pipeline)
    assert sent(wire) == [("of a", "a")]
    wire.answer(wire.requests[0][1])
    wire.answer(wire.requests[1][1])
    assert (await read(second), second.model) == ("answer", "a")


@pytest.mark.parametrize("how", ["lost", "isolated", "drained", "not offered"])
async def test_what_waits_for_a_model_that_nobody_serves_any_more_falls_back_at_once(
    pipeline_of: Make, wire: PuppetTransport, how: Any
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    agent(wire, "of a", "a", slots=0)
    agent(wire, "of b", "b")
    stream = ask(pipeline)
    assert sent(wire) == []
    match how:
        case "lost":
            wire.lose("of a")
        case "not offered":
            wire.report("of a", models=["x"], slots=0)
        case _:
            pipeline.order_agent("of a", how)
    assert sent(wire) == [("of b", "b")]
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"


async def test_a_quarantined_model_falls_back(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline: Orchestrator = await pipeline_of(
        wire, breaker={"errors": 1, "quarantine_trips": 1, "quarantine_probe": 1000}, max_attempts=1, **ABC
    )
    agent(wire, "of a", "a")
    agent(wire, "of b", "b")
    first = ask(pipeline)
    fail(wire)
    with pytest.raises(errors.EngineFailed):
        await read(first)
    ask(pipeline)
    assert sent(wire)[-1] == ("of b", "b")


async def test_where_nobody_serves_any_the_first_to_come_answers(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, agent_wait=5.0, **ABC)
    for_a, for_c = ask(pipeline), ask(pipeline)
    assert pipeline.waiting == 2
    agent(wire, "of a", "a")
    assert sent(wire) == [("of a", "a")]
    wire.lose("of a")
    agent(wire, "of c", "c", slots=2)
    assert sent(wire)[1:] == [("of c", "c")] * 2
    for _, request in wire.requests[1:]:
        wire.answer(request)
    assert [await read(each) for each in (for_a, for_c)] == ["answer"] * 2
    assert [each.model for each in (for_a, for_c)] == ["c"] * 2


async def test_an_error_for_want_of_agents_names_all_models(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, agent_wait=5.0, **ABC)
    stream = ask(pipeline)
    clock.advance(5.1)
    with pytest.raises(errors.NoAgent, match=r"'a', nor for 'b', 'c' in its place, within 5 s"):
        await read(stream)
    agent(wire, "other", "x")
    with pytest.raises(errors.ModelNotFound, match="'a'"):
        ask(pipeline)


# Its attempts have failed


async def test_each_of_a_chain_is_tried_in_order_and_the_error_names_them(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    told: list[Any] = []
    pipeline.events.subscribe("test", told.append, events.TaskFellBack, events.TaskEnded)
    agent(wire, "all", "a", "b", "c")
    stream = ask(pipeline)
    for _ in range(3):
        fail(wire)
    assert sent(wire) == [("all", "a"), ("all", "b"), ("all", "c")]
    with pytest.raises(
        errors.EngineFailed, match=r"broken \(model 'c', in place of 'a' \(engine_failed\), 'b' \(engine_failed\)\)$"
    ):
        await read(stream)
    assert stream.spent == 3
    assert [(each.before, each.model) for each in told[:2]] == [("a", "b"), ("b", "c")]
    assert told[2].message.endswith("'b' (engine_failed))")


@pytest.mark.parametrize(
    "error",
    [
        errors.EngineFailed("broken", status=500),
        errors.NoAgent("below"),
        errors.ModelStopped("below"),
        errors.StreamCorrupted("nonsense"),
        errors.AgentLost("below"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_another_model_might_not_end_with(
    pipeline_of: Make, wire: PuppetTransport, error: errors.AnywireError
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    agent(wire, "of a", "a")
    agent(wire, "of b", "b")
    stream = ask(pipeline)
    fail(wire, error)
    assert sent(wire) == [("of a", "a"), ("of b", "b")]
    wire.answer(wire.requests[1][1])
    assert (await read(stream), stream.model) == ("answer", "b")


async def test_a_request_at_fault_does_not_fall_back(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    agent(wire, "all", "a", "b", slots=2)
    stream = ask(pipeline)
    fail(wire, errors.InvalidRequest("no such role", status=400))
    with pytest.raises(errors.InvalidRequest, match=r"^no such role$"):
        await read(stream)
    assert len(wire.requests) == 1


async def test_a_lost_agent_is_followed_by_another_of_the_model_before_its_fallback(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, fallbacks={"a": ["b"]})
    agent(wire, "b1", "b")
    agent(wire, "a1", "a")
    agent(wire, "a2", "a")
    stream = ask(pipeline)
    wire.lose(wire.requests[-1][0])
    assert [model for _, model in sent(wire)] == ["a", "a"]
    fail(wire)
    assert sent(wire)[-1] == ("b1", "b")
    wire.answer(wire.requests[-1][1])
    assert (await read(stream), stream.spent) == ("answer", 3)


async def test_agents_at_which_one_model_has_failed_are_asked_for_the_next_one(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, fallbacks={"a": ["b"]}, max_attempts=9)
    agent(wire, "1", "a", "b")
    agent(wire, "2", "a", "b")
    ask(pipeline)
    for _ in range(4):
        fail(wire)
    assert [model for _, model in sent(wire)] == ["a", "a", "b", "b"]
    assert {each[0] for each in sent(wire)[:2]} == {each[0] for each in sent(wire)[2:]} == {"1", "2"}


async def test_an_agent_at_which_the_model_failed_that_nobody_serves_any_more_is_asked_for_the_next_one(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, fallbacks={"a": ["b"]}, max_attempts=9)
    agent(wire, "2", "a")
    ask(pipeline)
    agent(wire, "1", "a", "b")
    agent(wire, "3", "b")
    stream = ask(pipeline)
    fail(wire)
    assert sent(wire) == [("2", "a"), ("1", "a")]
    wire.report("1", models=["b"], slots=0)
    wire.report("2", models=["x"])
    assert sent(wire)[2:] == [("3", "b")]
    wire.report("1", models=["b"])
    fail(wire)
    assert sent(wire)[3:] == [("1", "b")]
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"


async def test_one_attempt_is_left_for_each_of_the_chain(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, max_attempts=3, **ABC)
    for name in ("1", "2", "3"):
        agent(wire, name, "a", "b", "c")
    ask(pipeline)
    for _ in range(2):
        fail(wire)
    assert [model for _, model in sent(wire)] == ["a", "b", "c"]


@pytest.mark.parametrize("settings", [{"max_attempts": 1}, {"retries": {"base": 0, "floor": 0, "share": 0}}])
async def test_attempts_and_retries_bound_the_whole_chain(
    pipeline_of: Make, wire: PuppetTransport, settings: dict[str, Any]
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **settings, **ABC)
    agent(wire, "all", "a", "b", "c", slots=3)
    stream = ask(pipeline)
    fail(wire)
    with pytest.raises(errors.EngineFailed):
        await read(stream)
    assert len(wire.requests) == 1


async def test_a_stream_that_has_shown_text_does_not_change_its_model(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, agent_wait=5.0, **ABC)
    agent(wire, "of a", "a")
    agent(wire, "of b", "b")
    stream = ask(pipeline)
    wire.chunk(wire.requests[0][1], 0, "shown ")
    wire.lose("of a")
    assert len(wire.requests) == 1
    agent(wire, "back", "a")
    assert wire.requests[1][1].resume == "shown "
    wire.answer(wire.requests[1][1], "whole")
    assert (await read(stream), stream.model) == ("shown whole", "a")


async def test_a_caller_gets_only_models_that_it_may_use(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    agent(wire, "all", "b", "c")
    ask(pipeline, caller=Caller("key", limits=Limits(models=("a", "c"))))
    assert sent(wire) == [("all", "c")]
    with pytest.raises(errors.ModelNotFound):
        ask(pipeline, caller=Caller("key", limits=Limits(models=("a",))))


async def test_only_a_model_with_the_features_needed_takes_the_place(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    wire.join("all", slots=0)
    offered = (Offer("b", features={"tools": False}), Offer("c", features={"tools": True}))
    wire.sink.agent_reported("all", 1, AgentStatus("all", 1, "ready", offers_text(offered), 2))
    ask(pipeline, TOOLS)
    ask(pipeline)
    assert [model for _, model in sent(wire)] == ["c", "b"]


# Models that the request names


async def test_models_of_the_request_come_first_then_those_of_the_configuration(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    agent(wire, "all", "a", "b", "c", "d")
    stream = ask(pipeline, '{"models":["d"]}')
    for _ in range(3):
        fail(wire)
    assert [model for _, model in sent(wire)] == ["a", "d", "b"]
    with pytest.raises(errors.EngineFailed, match=r"in place of 'a' \(engine_failed\), 'd' \(engine_failed\)"):
        await read(stream)


async def test_a_request_may_bring_a_chain_of_its_own(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire)
    agent(wire, "of a", "a")
    agent(wire, "of b", "b", slots=0)
    stream = ask(pipeline, '{"models":["b"]}')
    fail(wire)
    assert pipeline.waiting == 1
    wire.report("of b", models=["b"], slots=1)
    assert sent(wire)[-1] == ("of b", "b")
    wire.answer(wire.requests[-1][1])
    assert (await read(stream), stream.model) == ("answer", "b")


@pytest.mark.parametrize("how", ["drained", "isolated", "lost"])
async def test_a_model_that_nobody_ever_served_waits_for_a_fallback_that_is_away(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, how: Any
) -> None:
    """That nobody serves a fallback for a while does not make the model unknown."""
    pipeline: Orchestrator = await pipeline_of(wire, agent_wait=5.0, **ABC)
    agent(wire, "of c", "c")
    agent(wire, "other", "x")
    if how == "lost":
        wire.lose("of c")
    else:
        pipeline.order_agent("of c", how)
    waits, in_vain = ask(pipeline), ask(pipeline, deadline_s=1.0)
    assert pipeline.waiting == 2
    clock.advance(1)
    with pytest.raises(errors.DeadlineExceeded):
        await read(in_vain)
    if how == "lost":
        agent(wire, "of c", "c")
    else:
        pipeline.order_agent("of c", "")
    assert sent(wire) == [("of c", "c")]
    wire.answer(wire.requests[0][1])
    assert (await read(waits), waits.model) == ("answer", "c")
    pipeline.order_agent("of c", "drained")
    late = ask(pipeline)
    clock.advance(5)
    with pytest.raises(errors.NoAgent, match="agent of c is drained by an operator"):
        await read(late)


async def test_a_model_whose_fallbacks_are_unknown_too_is_unknown(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    agent(wire, "other", "x")
    with pytest.raises(errors.ModelNotFound, match="'a'"):
        ask(pipeline)


# Bounds


async def test_circles_are_not_followed(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, fallbacks={"a": ["b"], "b": ["a"]}, max_attempts=9)
    agent(wire, "all", "a", "b")
    stream = ask(pipeline)
    fail(wire)
    fail(wire)
    with pytest.raises(errors.EngineFailed):
        await read(stream)
    assert [model for _, model in sent(wire)] == ["a", "b"]


async def test_a_decision_to_fall_back_on_nobody_is_an_end(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, **ABC)
    pipeline._attempt_ends._decider._chosen = lambda *given: FallBack()
    agent(wire, "of a", "a")
    stream = ask(pipeline)
    fail(wire)
    with pytest.raises(errors.EngineFailed):
        await read(stream)
    shown = ask(pipeline)
    agent(wire, "of b", "b")
    wire.chunk(wire.requests[-1][1], 0, "shown")
    fail(wire)
    with pytest.raises(errors.EngineFailed):
        await read(shown)
    assert len(wire.requests) == 2


@pytest.mark.parametrize(
    ("fallbacks", "said"),
    [
        ({"a": ["b", "a"]}, "cannot be a fallback of itself"),
        ({"a": [str(number) for number in range(9)]}, "at most 8"),
        ({"a": [""]}, "1 to 256 characters"),
        ({"a": ["x" * 257]}, "1 to 256 characters"),
        ({"a": "b"}, r"the fallbacks of 'a' are a list of models: \[b\]"),
    ],
)
def test_a_chain_that_cannot_be_meant_is_refused(fallbacks: Any, said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        PipelineConfig(fallbacks=fallbacks)
