"""Quarantine: how an agent gets there, what tasks see meanwhile, its probes, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from tests.health_laws import HealthLaws

from anywire import errors, events
from anywire.messages import AgentInfo, TaskRequest
from anywire.pipeline.health.health import REMEMBERED_AWAY
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.orders.probes import PROBE_DEADLINE
from anywire.pipeline_settings import PipelineConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]
STRICT = {"errors": 1, "quarantine_trips": 1, "quarantine_probe": 3.0}


def chat(pipeline: Orchestrator, model: str = MODEL, stream: bool = True) -> Any:
    return pipeline.submit(Submission("chat", model, "{}", stream))


def fail(wire: PuppetTransport, request: TaskRequest, error: errors.AnywireError | None = None) -> None:
    wire.chunk(request, 0, final=True, error=errors.to_wire(error or errors.EngineFailed("broken")))


async def quarantined(pipeline_of: Make, wire: PuppetTransport, **settings: Any) -> Orchestrator:
    """A pipeline whose only agent ``a`` has just been quarantined."""
    pipeline: Orchestrator = await pipeline_of(
        wire, **{"max_attempts": 1, "agent_wait": 2.0, "breaker": STRICT} | settings
    )
    wire.join("a", slots=2)
    stream = chat(pipeline)
    fail(wire, wire.requests[-1][1])
    with pytest.raises(errors.EngineFailed):
        await read(stream)
    assert pipeline.agent_health("a").state == "quarantined"
    return pipeline


def probes(wire: PuppetTransport, begun: int = 1) -> list[TaskRequest]:
    """The probes that were sent, after the one task of `quarantined`."""
    return [request for _, request in wire.requests[begun:]]


@pytest.mark.parametrize(
    "settings", [{"breaker": {"quarantine_probe": 1e-9}}, {"retries": {"floor": 10**400}}], ids=str
)
def test_settings_with_which_the_pipeline_would_do_nothing_else_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"quarantine_probe|floor"):
        PipelineConfig(**settings)


# What tasks see


async def test_it_begins_after_as_many_trips_and_says_why(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    breaker = {"errors": 2, "quarantine_trips": 3, "quarantine_probe": 4.0}
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=breaker)
    wire.join("a")
    states = []
    for _ in range(4):
        chat(pipeline)
        fail(wire, wire.requests[-1][1])
        states.append(pipeline.health.state("a"))
        clock.advance(2.1 if states[-1] == "open" else 0)
    assert states == ["closed", "open", "open", "quarantined"]
    health = pipeline.agent_health("a")
    assert health.reason == "its breaker has opened 3 times (4 × engine_failed)"
    assert (health.evidence, health.trips, health.probes, health.retry_in_s) == ({"engine_failed": 4}, 3, 0, 4.0)
    counts = pipeline.stats()["events"]
    assert (counts["trips"], counts["quarantines"]) == (3, 1)


async def test_a_task_waits_for_a_bounded_time_and_reads_who_is_quarantined_and_why(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    stream = chat(pipeline)
    clock.advance(2.0)
    with pytest.raises(errors.NoAgent) as caught:
        await read(stream)
    assert str(caught.value) == (
        f"no agent for model {MODEL!r} within 2 s: agent a is quarantined: its breaker has opened once "
        "(1 × engine_failed), it is tried again in 1 s"
    )
    assert caught.value.retry_after == 1.0
    assert len(wire.requests) == 1


async def test_a_task_waits_for_it_though_others_serve_other_models(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    wire.join("b", models=("other",))
    stream = chat(pipeline)
    assert pipeline.waiting == 1
    clock.advance(2.0)
    with pytest.raises(errors.NoAgent, match="agent a is quarantined"):
        await read(stream)


async def test_what_waits_goes_to_an_agent_that_has_passed_its_probe(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire, agent_wait=10.0)
    told: list[tuple[str, str]] = []
    pipeline.events.subscribe("me", lambda each: told.append((each.state, each.reason)), events.HealthChanged)
    stream = chat(pipeline)
    clock.advance(3.0)
    (probe,) = probes(wire)
    assert (probe.kind, probe.model, probe.tenant, probe.stream) == ("chat", MODEL, "", False)
    wire.answer(probe, "pong")
    assert pipeline.health.state("a") == "closed"
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"
    assert told == [("closed", "")]


async def test_who_fails_again_soon_after_a_passed_probe_is_quarantined_for_longer(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    clock.advance(3.0)
    wire.answer(wire.requests[-1][1])
    chat(pipeline)
    fail(wire, wire.requests[-1][1])
    assert pipeline.agent_health("a").state == "quarantined"
    assert pipeline.agent_health("a").retry_in_s == 6.0


# Probes


async def test_a_failed_probe_is_followed_by_another_one_after_twice_the_time(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    for number, pause in enumerate((3.0, 6.0, 12.0, 24.0, 48.0, 60.0, 60.0)):
        assert pipeline.agent_health("a").retry_in_s == pytest.approx(pause)
        clock.advance(pause - 0.1)
        assert len(probes(wire)) == number
        clock.advance(0.1)
        assert len(probes(wire)) == number + 1
        assert pipeline.agent_health("a").retry_in_s == 0.0
        fail(wire, probes(wire)[-1])
    assert pipeline.agent_health("a").probes == 7


@pytest.mark.parametrize(
    ("error", "passed"),
    [(errors.EngineFailed("broken"), False), (errors.EngineFailed("key", status=401), None),
     (errors.InvalidRequest("no template"), True), (errors.InvalidRequest("gone", status=404), None),
     (errors.Refused("busy"), None), (errors.TaskCancelled("stopped"), None)],
    ids=str,
)  # fmt: skip
async def test_what_the_end_of_a_probe_says(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, error: errors.AnywireError, passed: bool | None
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    clock.advance(3.0)
    fail(wire, probes(wire)[0], error)
    health = pipeline.agent_health("a")
    assert (health.state == "closed") == (passed is True)
    assert health.retry_in_s == {True: 0.0, False: 6.0, None: 3.0}[passed]


async def test_a_probe_asks_for_the_model_that_failed(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=STRICT)
    wire.join("a", models=("good", "bad"))
    chat(pipeline, "bad")
    fail(wire, wire.requests[-1][1])
    clock.advance(3.0)
    assert wire.requests[-1][1].model == "bad"


async def test_a_probe_that_hangs_ends_in_time_and_another_one_follows(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """The agent accepts it, and hears no cancel."""
    pipeline = await quarantined(pipeline_of, wire)
    laws = HealthLaws(pipeline)
    clock.advance(3.0)
    wire.accept(probes(wire)[0])
    clock.advance(PROBE_DEADLINE)
    assert (laws.probes_ended["a"], pipeline.agent_health("a").retry_in_s) == (1, 6.0)
    clock.advance(6.0)
    assert len(probes(wire)) == 2
    wire.answer(probes(wire)[1])
    assert pipeline.health.state("a") == "closed"
    wire.answer(probes(wire)[0])
    assert pipeline.health.state("a") == "closed"
    assert not laws.faults


async def test_an_agent_that_goes_with_its_probe_gets_the_next_one_when_it_is_back_and_ready(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    laws = HealthLaws(pipeline)
    clock.advance(3.0)
    wire.lose("a")
    assert laws.probes_ended["a"] == 1
    clock.advance(600)
    assert len(probes(wire)) == 1
    wire.sink.agent_joined(AgentInfo("a", 2, capabilities=("chat",), lease_ms=1000))
    assert pipeline.agent_health("a").state == "quarantined"
    assert len(probes(wire)) == 1
    wire.join("a", incarnation=2)
    assert len(probes(wire)) == 2
    wire.answer(probes(wire)[1])
    assert pipeline.health.state("a") == "closed"
    assert not laws.faults


async def test_an_agent_that_crashes_at_its_probes_and_comes_back_at_once_is_not_probed_at_once(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    await quarantined(pipeline_of, wire)
    for life in range(2, 12):
        wire.lose("a", incarnation=life - 1)
        wire.join("a", incarnation=life)
        clock.advance(0.5)
    assert len(probes(wire)) <= 2


@pytest.mark.parametrize("fault", ["congested", "unavailable", "too large"])
async def test_a_probe_that_cannot_be_sent_is_tried_again(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, fault: str
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    laws = HealthLaws(pipeline)
    wire.fail_next = {
        "congested": errors.Congested("full"),
        "unavailable": errors.AgentUnavailable("no link"),
        "too large": errors.PayloadTooLarge("too large"),
    }[fault]
    clock.advance(3.0)
    assert (len(probes(wire)), laws.probes_ended["a"]) == (0, 1)
    for _ in range(3):
        await asyncio.sleep(0)  # there is room again
    wire.report("a", slots=2)
    assert pipeline.agent_health("a").retry_in_s == 3.0
    clock.advance(3.0)
    assert len(probes(wire)) == 1
    assert not laws.faults


async def test_a_probe_that_an_operator_cancels_says_nothing(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    laws = HealthLaws(pipeline)
    clock.advance(3.0)
    (view,) = pipeline.tasks()
    assert (view.caller.id, view.place) == ("anywire:probe", "running")
    assert pipeline.cancel(view.task_id)
    assert (laws.probes_ended["a"], pipeline.agent_health("a").retry_in_s) == (1, 3.0)
    wire.stop(probes(wire)[0])
    assert laws.probes_ended["a"] == 1


async def test_a_probe_cancelled_by_whoever_is_told_of_it_says_nothing(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    laws = HealthLaws(pipeline)
    pipeline.events.subscribe("me", lambda event: pipeline.cancel(event.task_id), events.TaskAdmitted)
    clock.advance(3.0)
    assert laws.probes_sent["a"] == laws.probes_ended["a"] == 1
    assert not pipeline.tasks()


async def test_an_agent_without_a_free_slot_is_probed_once_it_has_one(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=STRICT)
    wire.join("a", slots=2)
    streams = [chat(pipeline), chat(pipeline)]
    wire.accept(wire.requests[1][1])
    wire.report("a", slots=1)
    fail(wire, wire.requests[0][1])
    clock.advance(3.0)
    assert (len(wire.requests), pipeline.agent_health("a").probes) == (2, 0)
    wire.answer(wire.requests[1][1])
    assert await read(streams[1]) == "answer", "what ran on it goes on"
    clock.advance(3.0)
    assert (len(wire.requests), pipeline.agent_health("a").probes) == (3, 1)


async def test_an_answer_of_what_was_sent_before_does_not_end_it(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=STRICT)
    wire.join("a", slots=2)
    chat(pipeline)
    chat(pipeline)
    fail(wire, wire.requests[0][1])
    wire.answer(wire.requests[1][1])
    assert pipeline.health.state("a") == "quarantined"


# Lives


async def test_it_outlasts_the_agents_life(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    wire.lose("a")
    wire.join("a", incarnation=2)
    chat(pipeline)
    assert pipeline.agent_health("a").state == "quarantined"
    assert len(wire.requests) == 1


async def test_of_those_that_have_gone_only_some_are_remembered_and_others_may_serve_again(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    wire.lose("a")
    for number in range(REMEMBERED_AWAY + 5):
        wire.join(f"b{number}")
        chat(pipeline)
        fail(wire, wire.requests[-1][1])
        wire.lose(f"b{number}")
    assert len(pipeline.health._records) <= REMEMBERED_AWAY
    assert len(pipeline.health._quarantine._stays) <= REMEMBERED_AWAY
    assert len(pipeline.registry._barred) <= REMEMBERED_AWAY
    assert pipeline.agent_health("a").state == "closed"
    wire.join("a", incarnation=2)
    stream = chat(pipeline)
    wire.answer(wire.requests[-1][1])
    assert await read(stream) == "answer"


async def test_an_orchestrator_that_closes_sends_no_probe_and_waits_for_none(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await quarantined(pipeline_of, wire)
    laws = HealthLaws(pipeline)
    clock.advance(3.0)
    assert len(probes(wire)) == 1
    pipeline.close_gate()
    assert not pipeline.tasks()
    assert laws.probes_ended["a"] == 1
    wire.stop(probes(wire)[0])
    clock.advance(600)
    wire.lose("a")
    wire.join("a", incarnation=2)
    assert len(probes(wire)) == 1
    await pipeline.close()
    wire.join("a", incarnation=3)
    clock.advance(600)
    assert not clock.pending
    assert len(probes(wire)) == 1
