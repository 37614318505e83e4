"""Models that a service sees to: their tasks wait for it instead of being refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from anywire import errors
from anywire.messages import AgentStatus
from anywire.offers import Offer, offers_text
from anywire.roles.context import OrchestratorContext
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]


@pytest.fixture
def wire() -> PuppetTransport:
    return PuppetTransport()


def chat(orchestrator: Any, model: str = MODEL, body: Any = None) -> Any:
    return orchestrator.submit(Submission("chat", model, msgspec.json.encode(body or {}).decode(), True))


def report(wire: PuppetTransport, agent_id: str, *offered: Offer) -> None:
    wire.sink.agent_reported(agent_id, 1, AgentStatus(agent_id, 1, "ready", offers_text(offered), 8))


def join(wire: PuppetTransport, agent_id: str, *offered: Offer) -> None:
    wire.join(agent_id, capabilities=("chat",), models=(), slots=0, state="starting")
    report(wire, agent_id, *offered)


async def test_a_task_waits_for_a_stopped_model_that_is_expected(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=2.0)
    context = OrchestratorContext(pipeline, "placement")
    join(wire, "a", Offer(MODEL, state="stopped"))
    with pytest.raises(errors.ModelStopped):
        chat(pipeline)
    context.expect_models([MODEL])
    stream = chat(pipeline)
    clock.advance(30.0)
    assert pipeline.waiting == 1
    report(wire, "a", Offer(MODEL, state="starting"))
    clock.advance(30.0)
    assert not wire.requests
    report(wire, "a", Offer(MODEL))
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"


async def test_tasks_of_a_lost_agent_wait_for_its_model(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=2.0)
    OrchestratorContext(pipeline, "placement").expect_models([MODEL])
    join(wire, "a", Offer(MODEL))
    join(wire, "b", Offer(MODEL, state="stopped"))
    stream = chat(pipeline)
    wire.lose("a")
    clock.advance(10.0)
    report(wire, "b", Offer(MODEL))
    clock.advance(1.0)
    assert [agent_id for agent_id, _ in wire.requests] == ["a", "b"]
    wire.answer(wire.requests[1][1])
    assert await read(stream) == "answer"


async def test_what_is_expected_no_more_fails_at_the_next_look(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=0.0)
    first, second = OrchestratorContext(pipeline, "one"), OrchestratorContext(pipeline, "two")
    join(wire, "a", Offer(MODEL, state="stopped"))
    first.expect_models([MODEL])
    second.expect_models([MODEL, "another"])
    stream, other = chat(pipeline), chat(pipeline, "another")
    clock.advance(10.0)
    second.expect_models(())
    clock.advance(10.0)
    with pytest.raises(errors.ModelNotFound):
        await read(other)
    assert pipeline.waiting == 1
    first.expect_models(())
    clock.advance(10.0)
    with pytest.raises(errors.ModelStopped):
        await read(stream)
    with pytest.raises(errors.ModelStopped):
        chat(pipeline)


async def test_a_need_that_the_model_does_not_have_is_refused_all_the_same(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    OrchestratorContext(pipeline, "placement").expect_models([MODEL])
    join(wire, "a", Offer(MODEL, features={"tools": False}))
    join(wire, "b", Offer(MODEL, features={"tools": False}, state="stopped"))
    with pytest.raises(errors.InvalidRequest, match="tools"):
        chat(pipeline, body={"tools": [{"type": "function"}]})
