"""Breakers of agents and links in a pipeline: what they count, and what a task may expect of those that have failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.health_laws import HealthLaws

from anywire import errors, events
from anywire.agent_health import AgentHealth
from anywire.failure_settings import PROFILES, BreakerConfig
from anywire.messages import TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]
ONE = {"errors": 1}


def chat(pipeline: Orchestrator) -> Any:
    return pipeline.submit(Submission("chat", MODEL, "{}", True))


def fail(wire: PuppetTransport, request: TaskRequest, error: errors.AnywireError | None = None) -> None:
    wire.chunk(request, 0, final=True, error=errors.to_wire(error or errors.EngineFailed("broken")))


# One probe, and its permission is given back


@pytest.mark.parametrize("end", ["no link", "too large", "refused", "cancelled", "isolated", "hedged away"])
async def test_a_half_open_agent_whose_probe_says_nothing_gets_another_one(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, end: str
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=ONE)
    laws = HealthLaws(pipeline)
    wire.join("a")
    chat(pipeline)
    fail(wire, wire.requests[-1][1])
    wire.join("b", slots=100)
    clock.advance(1.0)
    assert pipeline.health.state("a") == "half_open"
    if end in ("no link", "too large"):
        wire.fail_next = errors.AgentUnavailable("no") if end == "no link" else errors.PayloadTooLarge("too large")
    stream = pipeline.submit(Submission("chat", MODEL, "{}", True, prefer=("a",)))
    probe = wire.requests[-1][1]
    if end == "refused":
        fail(wire, probe, errors.Refused("busy"))
    elif end == "cancelled":
        pipeline.cancel(stream.task_id)
        wire.stop(probe)
    elif end == "isolated":
        pipeline.order_agent("a", "isolated")
        wire.stop(probe)
        pipeline.order_agent("a", "")
    elif end == "hedged away":
        pipeline.attempts._open.cancel(pipeline.attempts.open[probe.task_id, 1], "another attempt was quicker")
        wire.stop(probe)
    wire.report("a")
    pipeline.submit(Submission("chat", MODEL, "{}", True, prefer=("a",)))
    assert wire.requests[-1][0] == "a"
    wire.answer(wire.requests[-1][1])
    assert pipeline.health.state("a") == "closed"
    assert not laws.faults


async def test_a_task_that_has_failed_is_no_probe_while_another_agent_is_only_busy(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """Else one client would pay for the probes of all that have failed."""
    pipeline = await pipeline_of(wire, breaker=ONE, explained_tasks=10)
    for agent_id in ("a", "b"):
        wire.join(agent_id)
        stream = chat(pipeline)
        while pipeline.tasks():
            fail(wire, wire.requests[-1][1])
        with pytest.raises(errors.EngineFailed):
            await read(stream)
    wire.join("good", slots=1)
    occupying = chat(pipeline)
    assert wire.requests[-1][0] == "good"
    clock.advance(1.0)
    stream = chat(pipeline)
    assert wire.requests[-1][0] in ("a", "b")
    begun = len(wire.requests)
    fail(wire, wire.requests[-1][1])
    assert len(wire.requests) == begun, "it waits for the good one"
    wire.answer(next(request for _, request in wire.requests if request.task_id == occupying.task_id))
    assert wire.requests[-1][0] == "good"
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"


async def test_an_open_agent_gets_tasks_while_the_only_other_one_is_about_to_go(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=ONE)
    wire.join("a")
    chat(pipeline)
    fail(wire, wire.requests[-1][1])
    wire.join("b", state="draining")
    stream = chat(pipeline)
    assert wire.requests[-1][0] == "a"
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"


# Lives that end


async def test_the_loss_of_a_life_is_one_failure_and_each_further_loss_another_one(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 3})
    for number in range(1, 4):
        wire.join("a", slots=8)
        for _ in range(4):
            chat(pipeline)
        wire.lose("a")
        assert pipeline.health.report("a").evidence == {"agent_lost": number}
    assert pipeline.health.state("a") == "open"


async def test_a_life_that_is_lost_over_two_links_is_one_failure(pipeline_of: Make) -> None:
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second, max_attempts=1, breaker={"errors": 3})
    first.join("a")
    chat(pipeline)
    second.join("a")
    first.lose("a")
    chat(pipeline)
    second.lose("a")
    assert len(second.requests) == 1
    assert pipeline.health.report("a").evidence == {"agent_lost": 1}


@pytest.mark.parametrize("answers", [False, True])
async def test_a_life_whose_links_break_one_after_the_other_is_lost_unless_it_has_answered_since(
    pipeline_of: Make, answers: bool
) -> None:
    """The link that broke last had no task on it."""
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second, max_attempts=1, breaker={"errors": 3})
    first.join("a")
    second.join("a")
    chat(pipeline)
    first.lose("a")
    if answers:
        chat(pipeline)
        second.answer(second.requests[0][1])
    assert pipeline.health.report("a").evidence == {}
    second.lose("a")
    assert pipeline.health.report("a").evidence == ({} if answers else {"agent_lost": 1})


# Links


async def test_a_link_that_is_lost_again_and_again_rests_while_there_is_another_one(
    pipeline_of: Make, clock: SimulatedClock
) -> None:
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second, max_attempts=1, breaker={"errors": 2})
    told: list[tuple[str, str]] = []
    pipeline.events.subscribe("me", lambda each: told.append((each.transport, each.state)), events.HealthChanged)
    second.join("a")
    for _ in range(2):
        first.join("a")
        for _ in range(3):
            chat(pipeline)
        assert pipeline.agents()[0].transport == "first"
        first.lose("a")
    first.join("a")
    assert pipeline.agents()[0].transport == "second"
    assert told == [("first", "open")]
    clock.advance(1.0)
    assert pipeline.agents()[0].transport == "first"


async def test_a_half_open_link_carries_a_probe_and_the_rest_goes_over_the_other_one(
    pipeline_of: Make, clock: SimulatedClock
) -> None:
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second, breaker=ONE)
    first.join("a", slots=20)
    second.join("a", slots=20)
    first.fail_next = errors.AgentUnavailable("no link")
    chat(pipeline)
    first.report("a", slots=20)
    assert (len(first.requests), len(second.requests)) == (0, 1)
    clock.advance(1.0)
    for _ in range(4):
        chat(pipeline)
    assert (len(first.requests), len(second.requests)) == (1, 4)
    # What says nothing of the link lets another task try it.
    fail(first, first.requests[0][1], errors.InvalidRequest("bad"))
    chat(pipeline)
    assert (len(first.requests), len(second.requests)) == (2, 4)
    first.answer(first.requests[1][1])
    for _ in range(3):
        chat(pipeline)
    assert (len(first.requests), len(second.requests)) == (5, 4)
    assert pipeline.health.state(("a", 0)) == "closed"


async def test_an_agent_that_fails_over_a_half_open_link_leaves_the_link_its_probe(
    pipeline_of: Make, clock: SimulatedClock
) -> None:
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second, breaker={"errors": 2}, max_attempts=1)
    first.join("a")
    second.join("a")
    for _ in range(2):
        first.fail_next = errors.AgentUnavailable("no link", phase="maybe_sent")
        chat(pipeline)
        first.report("a")
    assert pipeline.agents()[0].transport == "second"
    clock.advance(1.0)
    chat(pipeline)
    fail(first, first.requests[-1][1])
    chat(pipeline)
    assert len(first.requests) == 2


# Settings


def test_the_profile_patient_and_what_is_set_beside_it() -> None:
    config = PipelineConfig(breaker={"profile": "patient", "probes": 2}).breaker
    assert (config.errors, config.recovery, config.longest, config.call_timeout) == (3, 60.0, 60.0, 30.0)
    assert (config.probes, config.quarantine_trips) == (2, 5)
    assert {name: BreakerConfig(profile="patient").model_dump()[name] for name in PROFILES["patient"]} == PROFILES[
        "patient"
    ]


async def test_patient_opens_for_a_minute_and_counts_a_call_that_is_not_answered(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, breaker={"profile": "patient"}, max_attempts=1)
    wire.join("a")
    for _ in range(3):
        stream = chat(pipeline)
        wire.accept(wire.requests[-1][1])
        clock.advance(30.2)
        with pytest.raises(errors.NoProgress, match=r"did not answer within 30 s \(pipeline.breaker.call_timeout\)"):
            await read(stream)
        wire.stop(wire.requests[-1][1])
    assert pipeline.health.state("a") == "open"
    clock.advance(59)
    assert pipeline.health.state("a") == "open"
    clock.advance(1.1)
    assert pipeline.health.state("a") == "half_open"


# What is told


async def test_events_and_the_log_say_why_and_when_it_is_tried_again(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="anywire.pipeline.observation.agent_observation")
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={**ONE, "quarantine_trips": 2, "quarantine_probe": 7.0})
    told: list[events.HealthChanged] = []
    pipeline.events.subscribe("me", told.append, events.HealthChanged)
    wire.join("a")
    for _ in range(2):
        chat(pipeline)
        fail(wire, wire.requests[-1][1])
        clock.advance(1.0)
    pipeline.order_agent("a", "drained", "new disk")
    pipeline.order_agent("a", "")
    wire.answer(wire.requests[-1][1])
    assert [(each.state, each.trips, each.retry_in_ms) for each in told] == [
        ("open", 1, 1000),
        ("half_open", 1, 0),
        ("quarantined", 2, 7000),
        ("closed", 2, 0),
    ]
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("WARNING", "the breaker of agent a is open, for 1 s: 1 × engine_failed; the last one: broken"),
        (
            "WARNING",
            "agent a is quarantined, and sent a probe in 7 s: its breaker has opened 2 times (2 × engine_failed); the "
            "last one: broken",
        ),
        ("INFO", "agent a is drained by an operator: new disk"),
        ("INFO", "agent a is restored by an operator"),
        ("INFO", "the breaker of agent a is closed: all is well again"),
    ]


async def test_links_whose_breaker_is_not_closed_are_told_with_their_agent(
    pipeline_of: Make, clock: SimulatedClock
) -> None:
    first, second = PuppetTransport("first"), PuppetTransport("second")
    pipeline = await pipeline_of(first, second, breaker=ONE)
    first.join("a")
    second.join("a")
    first.fail_next = errors.AgentUnavailable("no link")
    chat(pipeline)
    assert pipeline.agent_health("a") == AgentHealth(links={"first": "open"})
    clock.advance(1.0)
    assert pipeline.agent_health("a") == AgentHealth(links={"first": "half_open"})
