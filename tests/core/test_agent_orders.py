"""What an operator orders of agents: drained, isolated, restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from anywire import errors, events
from anywire.caller import OPERATOR, Caller
from anywire.messages import TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.orders.agent_orders import MAX_ORDERS
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]


def chat(pipeline: Orchestrator, stream: bool = True) -> Any:
    return pipeline.submit(Submission("chat", MODEL, "{}", stream))


def join(wire: PuppetTransport, *agents: str, **more: Any) -> None:
    for agent_id in agents:
        wire.join(agent_id, capabilities=("chat", "resume"), **more)


def sent_to(wire: PuppetTransport, agent_id: str) -> list[TaskRequest]:
    return [request for receiver, request in wire.requests if receiver == agent_id]


async def test_a_drained_agent_ends_what_it_has_and_gets_nothing_more(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=2.0)
    join(wire, "a")
    running = chat(pipeline)
    health = pipeline.order_agent("a", "drained", "new memory")
    assert (health.state, health.order, health.reason) == ("closed", "drained", "new memory")
    waiting = chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, "one ")
    wire.chunk(wire.requests[0][1], 1, "two", final=True)
    assert await read(running) == "one two"
    assert not wire.cancels()
    clock.advance(2.0)
    with pytest.raises(errors.NoAgent, match="agent a is drained by an operator: new memory"):
        await read(waiting)
    assert len(wire.requests) == 1


async def test_isolating_takes_away_what_runs_and_it_goes_on_elsewhere(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """A stream that has begun is resumed, an answer without a token is sent again; the agent is told to stop, its slot
    is taken until it has, and nothing of it counts against its health."""
    pipeline = await pipeline_of(wire)
    join(wire, "a")
    begun, other = chat(pipeline), chat(pipeline, stream=False)
    wire.chunk(wire.requests[0][1], 0, "one ")
    join(wire, "b")
    pipeline.order_agent("a", "isolated")
    assert {(cancel.task_id, cancel.attempt) for cancel in wire.cancels()} == {(begun.task_id, 1), (other.task_id, 1)}
    again = {request.task_id: request for request in sent_to(wire, "b")}
    assert again[begun.task_id].resume == "one "
    wire.chunk(again[begun.task_id], 0, "two", final=True)
    wire.answer(again[other.task_id])
    assert (await read(begun), await read(other)) == ("one two", "answer")
    assert pipeline.registry.agent("a").in_flight == 2
    for request in sent_to(wire, "a"):
        wire.stop(request)
    assert pipeline.registry.agent("a").in_flight == 0
    assert pipeline.health.all_ok
    assert pipeline.registry.agent("a").failed == 0
    assert pipeline.stats()["events"]["isolated"] == 1


async def test_where_there_is_no_other_agent_the_client_reads_what_was_done(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=2.0)
    join(wire, "a")
    begun, other = chat(pipeline), chat(pipeline, stream=False)
    wire.chunk(wire.requests[0][1], 0, "one ")
    pipeline.order_agent("a", "isolated", "it is on fire")
    clock.advance(2.0)
    why = "agent a is isolated by an operator: it is on fire"
    with pytest.raises(errors.AgentLost, match=f"agent a was isolated .*; the answer is not resumed: no agent .*{why}"):
        await read(begun)
    with pytest.raises(errors.NoAgent, match=why):
        await read(other)


async def test_what_may_be_sent_only_once_ends_with_the_reason(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1)
    join(wire, "a", "b")
    stream = chat(pipeline)
    agent_id = wire.requests[0][0]
    pipeline.order_agent(agent_id, "isolated")
    with pytest.raises(errors.AgentLost, match=f"agent {agent_id} was isolated by an operator"):
        await read(stream)


async def test_an_order_holds_over_lives_until_it_is_restored(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    join(wire, "a")
    pipeline.order_agent("a", "drained")
    wire.lose("a")
    assert pipeline.agent_health("a").order == "drained"
    join(wire, "a", incarnation=2)
    stream = chat(pipeline)
    assert not wire.requests
    pipeline.order_agent("a", "")
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"
    assert pipeline.agent_health("a").order == ""


async def test_one_that_is_away_can_be_ordered(pipeline_of: Make, wire: PuppetTransport) -> None:
    """Whoever crashes at every task is seldom there when the operator looks."""
    pipeline = await pipeline_of(wire)
    join(wire, "a")
    wire.lose("a")
    pipeline.order_agent("a", "isolated")
    join(wire, "a", incarnation=2)
    chat(pipeline)
    assert not wire.requests


async def test_one_that_is_quarantined_can_be_ordered_however_long_it_has_been_away(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 1, "quarantine_trips": 1})
    join(wire, "a")
    chat(pipeline)
    wire.lose("a")
    pipeline.registry._former.clear()
    assert pipeline.order_agent("a", "isolated").state == "quarantined"
    with pytest.raises(errors.InvalidRequest, match="there is no agent 'b'"):
        pipeline.order_agent("b", "isolated")


async def test_another_order_takes_the_place_of_the_first_and_in_between_nothing_is_sent(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=3.0)
    join(wire, "a")
    pipeline.order_agent("a", "drained", "first")
    stream = chat(pipeline)
    clock.advance(2.0)
    for order, reason in (("isolated", "second"), ("isolated", "third"), ("drained", "last")):
        assert pipeline.order_agent("a", order, reason).reason == reason
    clock.advance(1.0)
    with pytest.raises(errors.NoAgent, match="drained by an operator: last"):
        await read(stream)
    assert not wire.requests
    pipeline.order_agent("a", "")
    chat(pipeline)
    assert len(wire.requests) == 1


async def test_a_quarantined_agent_under_an_order_gets_no_probe_until_it_is_restored(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 1, "quarantine_trips": 1})
    join(wire, "a")
    chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    pipeline.order_agent("a", "drained")
    clock.advance(300)
    assert len(wire.requests) == 1
    pipeline.order_agent("a", "")
    assert len(wire.requests) == 2
    assert pipeline.agent_health("a").state == "quarantined"
    wire.answer(wire.requests[1][1])
    assert pipeline.agent_health("a").state == "closed"


async def test_one_that_is_being_probed_gets_no_second_probe_when_it_is_restored(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 1, "quarantine_trips": 1})
    join(wire, "a", slots=4)
    chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    for _ in range(3):
        pipeline.order_agent("a", "")
    assert len(wire.requests) == 2
    assert pipeline.agent_health("a").probes == 1


async def test_isolating_gives_up_a_probe_and_that_says_nothing(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 1, "quarantine_trips": 1})
    join(wire, "a")
    chat(pipeline)
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    clock.advance(5.0)
    assert len(wire.requests) == 2
    pipeline.order_agent("a", "isolated")
    assert not pipeline.tasks()
    wire.stop(wire.requests[1][1])
    assert pipeline.agent_health("a").state == "quarantined"
    pipeline.order_agent("a", "")
    assert len(wire.requests) == 3


async def test_a_reason_can_be_shown_anywhere(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    told: list[events.AgentOrdered] = []
    pipeline.events.subscribe("test", told.append, events.AgentOrdered)
    pipeline.order_agent("a", "drained", "red\x1b[31m\nfaked line\x00" + "x" * 5000)
    reason = pipeline.agent_health("a").reason
    assert reason.startswith("red [31m faked line x")
    assert reason.isprintable()
    assert len(reason) == 1024
    assert told[0].reason == reason


async def test_what_is_told_of_orders(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    told: list[events.AgentOrdered] = []
    pipeline.events.subscribe("me", told.append, events.AgentOrdered)
    join(wire, "a")
    reason = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789 leaked"
    pipeline.order_agent("a", "drained", reason, Caller("key", "", "operate"))
    pipeline.order_agent("a", "")
    assert [(each.agent_id, each.order, each.caller) for each in told] == [("a", "drained", "key"), ("a", "", "")]
    assert "abcdefghijklmnopqrstuvwxyz" not in told[0].reason + pipeline.agent_health("a").reason


async def test_who_may_not_order_and_what_is_no_order(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    join(wire, "a")
    with pytest.raises(errors.Forbidden, match="role operate"):
        pipeline.order_agent("a", "drained", "", Caller("key", "", "observe"))
    with pytest.raises(errors.InvalidRequest, match="there is no agent 'b'"):
        pipeline.order_agent("b", "drained")
    with pytest.raises(errors.InvalidRequest, match="there is no order 'shot'"):
        pipeline.order_agent("a", "shot")
    for number in range(MAX_ORDERS):
        wire.join(f"n{number}")
        pipeline.order_agent(f"n{number}", "drained", "", OPERATOR)
    with pytest.raises(errors.InvalidRequest, match="restore one first"):
        pipeline.order_agent("a", "drained")
    assert pipeline.agent_health("a").order == ""
