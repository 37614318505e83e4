"""Slow start: how many slots an agent may use that is new, or back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.acting_wire import ActingWire
from tests.long_form import examples

from anywire import errors, events
from anywire.agent_health import WELL
from anywire.messages import AgentInfo
from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport

Make = Callable[..., Any]


def chats(pipeline: Orchestrator, count: int) -> None:
    for _ in range(count):
        pipeline.submit(Submission("chat", MODEL, "{}"))


def in_flight(pipeline: Orchestrator, agent_id: str = "a") -> int:
    agent = pipeline.registry.agent(agent_id)
    assert agent is not None
    return agent.in_flight


async def test_a_new_agent_gets_its_slots_one_after_the_other(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, breaker={"slow_start": 4.0}, accept_timeout=100)
    wire.sink.agent_joined(AgentInfo("a", 1, capabilities=("chat",), lease_ms=1000))
    chats(pipeline, 8)
    clock.advance(3.0)  # it loads its model: that is no part of the time
    wire.report("a", slots=4)
    for slots in (1, 2, 3, 4):
        assert in_flight(pipeline) == slots
        clock.advance(1.0)
    assert in_flight(pipeline) == 4
    assert not pipeline.registry._slow_start.any


async def test_without_the_setting_it_gets_all_at_once(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=4)
    chats(pipeline, 8)
    assert in_flight(pipeline) == 4


async def test_slots_that_become_fewer_or_more_meanwhile(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, breaker={"slow_start": 10.0}, accept_timeout=100)
    wire.join("a", slots=10)
    clock.advance(5.0)
    wire.report("a", slots=4)
    chats(pipeline, 20)
    assert in_flight(pipeline) == 3
    wire.report("a", slots=20)
    assert in_flight(pipeline) == 11
    clock.advance(5.0)
    assert in_flight(pipeline) == 20
    wire.lose("a")
    assert not pipeline.registry._slow_start.any


@pytest.mark.parametrize("back_from", ["failure", "order", "life"])
async def test_who_is_back_begins_slowly(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, back_from: str
) -> None:
    breaker = {"slow_start": 4.0, "errors": 1}
    pipeline = await pipeline_of(wire, breaker=breaker, max_attempts=1, accept_timeout=100)
    wire.join("a", slots=4)
    clock.advance(4.0)
    if back_from == "failure":
        chats(pipeline, 1)
        failure = errors.to_wire(errors.EngineFailed("broken"))
        wire.chunk(wire.requests[0][1], 0, final=True, error=failure)
        clock.advance(1.0)
        chats(pipeline, 1)
        wire.answer(wire.requests[1][1])
        assert pipeline.health.state("a") == "closed"
    elif back_from == "order":
        pipeline.order_agent("a", "drained")
        clock.advance(10.0)
        pipeline.order_agent("a", "")
    else:
        wire.lose("a")
        wire.join("a", slots=4, incarnation=2)
    chats(pipeline, 8)
    for slots in (1, 2, 3, 4):
        assert in_flight(pipeline) == slots
        clock.advance(1.0)


@pytest.mark.parametrize("seed", range(examples(5)))
async def test_it_never_has_more_than_it_may(pipeline_of: Make, clock: SimulatedClock, seed: int) -> None:
    """After a part of the time, that part of its slots and one more."""
    rng = random.Random(seed)
    wire = ActingWire(clock, rng)
    seconds = rng.choice([0.05, 1.0, 7.0])
    pipeline = await pipeline_of(wire, breaker={"slow_start": seconds})
    slots = rng.choice([1, 3, 16, 200])
    began = clock.now()
    wire.appear("a", slots)
    most = 0
    while clock.now() < began + 2 * seconds:
        chats(pipeline, rng.randint(0, 8))
        may = min(slots, 1 + int(slots * (clock.now() - began) / seconds + 1e-6))
        assert in_flight(pipeline) <= may
        most = max(most, in_flight(pipeline))
        clock.advance(rng.uniform(0, seconds / 20))
    assert most > min(1, slots - 1)
    assert not pipeline.registry._slow_start.any


async def test_it_is_told_with_each_slot_and_when_it_is_over(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, breaker={"slow_start": 3.0, "errors": 1, "quarantine_trips": 0})
    told: list[Any] = []
    pipeline.events.subscribe("me", told.append, events.AgentJoined, events.SlowStart)
    wire.join("a", slots=3)
    assert pipeline.agent_health("a").slow_start == 1
    clock.advance(1.0)
    assert pipeline.agent_health("a").slow_start == 2
    clock.advance(2.0)
    assert pipeline.agent_health("a").slow_start == 0
    joined, *slots = told
    assert isinstance(joined, events.AgentJoined)
    assert [(each.agent_id, each.given, each.slots) for each in slots] == [("a", given, 3) for given in (1, 2, 3)]
    pipeline.order_agent("a", "drained")
    pipeline.order_agent("a", "")
    assert (told[-1].given, told[-1].slots) == (1, 3)
    wire.lose("a")
    assert pipeline.agent_health("a").slow_start == 0
    assert (told[-1].given, told[-1].slots) == (1, 3), "that it is gone is told by another event"


async def test_without_the_setting_nothing_is_told(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    told: list[Any] = []
    pipeline.events.subscribe("me", told.append, events.SlowStart)
    wire.join("a", slots=3)
    assert pipeline.agent_health("a") == WELL
    assert not told
