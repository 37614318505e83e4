"""A model that fails at an agent takes neither the agent nor its other models away."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.health_laws import HealthLaws
from tests.long_form import examples

from anywire import errors, events
from anywire.agent_health import AgentHealth
from anywire.failure_settings import BreakerConfig
from anywire.messages import TaskRequest
from anywire.pipeline.health.failing_models import MOST, FailingModels, ModelAt
from anywire.pipeline.health.health import Health, Subject
from anywire.pipeline.orchestrator import Orchestrator
from anywire.scheduler import QueueKey
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.puppet import PuppetTransport

Make = Callable[..., Any]
ONE = {"errors": 1}
BROKEN = errors.EngineFailed("HTTP 500", status=500, concerns="model")


def chat(pipeline: Orchestrator, model: str = "bad", **more: Any) -> Any:
    return pipeline.submit(Submission("chat", model, "{}", True, **more))


def fail(wire: PuppetTransport, error: errors.AnywireError = BROKEN) -> TaskRequest:
    request = wire.requests[-1][1]
    wire.chunk(request, 0, final=True, error=errors.to_wire(error))
    return request


def last(wire: PuppetTransport) -> tuple[str, str]:
    """Who was sent the last task, and for which model."""
    agent_id, request = wire.requests[-1]
    return agent_id, request.model


def test_an_error_says_over_the_wire_that_it_concerns_the_model() -> None:
    for error, blames in (
        (errors.EngineFailed("x", status=500, concerns="model"), "model"),
        (errors.EngineFailed("x", status=424, concerns="model"), "model"),
        (errors.EngineFailed("x", status=424), ""),
        (errors.EngineFailed("x", status=500), "agent"),
        (errors.InvalidRequest("x", concerns="model"), ""),
        (errors.Refused("x", concerns="model"), ""),
        (errors.AgentUnavailable("x", concerns="model"), "link"),
    ):
        assert errors.from_wire(errors.to_wire(error), phase="streaming").blames == blames
    assert '"concerns"' not in errors.to_wire(errors.EngineFailed("x"))
    foreign = '{"code":"engine_failed","message":"x","concerns":"everything"}'
    assert errors.from_wire(foreign, phase="streaming").blames == "agent"


async def test_one_broken_model_leaves_its_agent_the_five_others(
    pipeline_of: Make, wire: PuppetTransport, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 3, "quarantine_trips": 1})
    told: list[events.HealthChanged] = []
    pipeline.events.subscribe("test", told.append, events.HealthChanged)
    good = [f"good-{number}" for number in range(5)]
    wire.join("a", slots=100, models=("bad", *good))
    wire.join("b", slots=100, models=("bad",))
    for _ in range(3):
        chat(pipeline, prefer=("a",))
        assert last(wire) == ("a", "bad")
        fail(wire)
    for _ in range(20):
        chat(pipeline, prefer=("a",))
        assert last(wire) == ("b", "bad"), "the model rests at a"
    for model in good:
        chat(pipeline, model)
        assert last(wire) == ("a", model)
    health = pipeline.agent_health("a")
    assert (health.state, health.models) == ("closed", {"bad": "open"})
    assert pipeline.agent_health("b") == AgentHealth()
    (event,) = told
    assert (event.agent_id, event.model, event.state, event.evidence) == ("a", "bad", "open", {"engine_failed": 3})
    assert "the breaker of bad at agent a is open" in caplog.text
    why = dict(pipeline.registry.no_candidates(QueueKey("bad", "chat")))
    assert why["a"] == "its 'bad' rests after failures"


async def test_a_model_is_tried_again_and_the_first_answer_makes_it_well(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 1, "recovery": 1.0, "probes": 1})
    wire.join("a", slots=100, models=("bad", "good"))
    wire.join("b", slots=100, models=("bad",))
    chat(pipeline, prefer=("a",))
    fail(wire)
    clock.advance(1.0)
    assert pipeline.agent_health("a").models == {"bad": "half_open"}
    chat(pipeline, prefer=("a",))
    assert last(wire)[0] == "a", "the first one tries it"
    probe = wire.requests[-1][1]
    chat(pipeline, prefer=("a",))
    assert last(wire)[0] == "b", "and no other one meanwhile"
    wire.chunk(probe, 0, final=True, error=errors.to_wire(BROKEN))
    assert pipeline.agent_health("a").models == {"bad": "open"}
    clock.advance(1.0)
    chat(pipeline, prefer=("a",))
    assert last(wire)[0] == "b", "it is open for longer the second time"
    clock.advance(1.0)
    chat(pipeline, prefer=("a",))
    assert last(wire)[0] == "a"
    wire.answer(wire.requests[-1][1])
    assert pipeline.agent_health("a").models == {}
    assert "the breaker of bad at agent a is closed" in caplog.text


@pytest.mark.parametrize("end", ["refused", "cancelled", "no link", "the agent's own"])
async def test_a_probe_of_a_model_that_says_nothing_of_it_is_made_again(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, end: str
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 1, "recovery": 1.0, "quarantine_trips": 0})
    wire.join("a", slots=100, models=("bad", "good"))
    chat(pipeline)
    fail(wire)
    wire.join("b", slots=100, models=("bad",))
    clock.advance(1.0)
    if end == "no link":
        wire.fail_next = errors.AgentUnavailable("no")
    stream = chat(pipeline, prefer=("a",))
    if end == "refused":
        fail(wire, errors.Refused("busy"))
    elif end == "cancelled":
        pipeline.cancel(stream.task_id)
        wire.stop(wire.requests[-1][1])
    elif end == "the agent's own":
        fail(wire, errors.EngineFailed("broken"))
        clock.advance(1.0)
    wire.report("a", slots=100, models=("bad", "good"))
    chat(pipeline, prefer=("a",))
    assert last(wire) == ("a", "bad")
    wire.answer(wire.requests[-1][1])
    assert pipeline.agent_health("a").models == {}


async def test_a_failed_task_goes_where_its_model_is_well(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """Also where that agent is busy."""
    pipeline = await pipeline_of(wire, breaker=ONE)
    for agent_id in ("a", "b", "c"):
        wire.join(agent_id, slots=2, models=("bad", "good"))
    chat(pipeline, prefer=("a",))
    for agent_id in ("a", "b"):
        assert last(wire) == (agent_id, "bad")
        fail(wire)
    assert last(wire) == ("c", "bad"), "it rests at a and b"
    running = [wire.requests[-1][1]]
    chat(pipeline)
    running.append(wire.requests[-1][1])
    chat(pipeline)
    assert len(wire.requests) == 4, "it waits for the agent where its model is well"
    for _ in range(2):
        chat(pipeline, "good", prefer=("a",))
        assert last(wire) == ("a", "good")
    for request in running:
        wire.answer(request)
    assert last(wire) == ("c", "bad")
    assert {agent_id: pipeline.agent_health(agent_id).state for agent_id in "abc"} == dict.fromkeys("abc", "closed")


async def test_an_agent_alone_with_a_broken_model_still_gets_its_tasks(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker={"errors": 1, "quarantine_trips": 1})
    wire.join("a", slots=100, models=("bad", "good"))
    for number in range(20):
        chat(pipeline)
        assert len(wire.requests) == number + 1
        fail(wire)
    assert pipeline.agent_health("a").state == "closed", "it is never quarantined for a model"


async def test_what_a_model_did_wrong_ends_with_its_agents_life(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=ONE)
    wire.join("a", slots=100, models=("bad",))
    chat(pipeline)
    fail(wire)
    assert not pipeline.health.all_ok
    wire.lose("a")
    assert pipeline.health.all_ok
    wire.join("a", incarnation=2, slots=100, models=("bad",))
    assert pipeline.agent_health("a").models == {}


async def test_a_probe_in_quarantine_that_meets_a_broken_model_ends_it(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    """The agent is well: its other models would be out for as long as this one is broken."""
    breaker = {"errors": 1, "quarantine_trips": 1, "quarantine_probe": 1.0}
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=breaker)
    wire.join("a", slots=100, models=("bad", "good"))
    chat(pipeline)
    fail(wire, errors.EngineFailed("the agent's own"))
    assert pipeline.agent_health("a").state == "quarantined"
    clock.advance(1.1)
    fail(wire)
    assert pipeline.agent_health("a").state == "closed"


# The laws, of health alone


class Model:
    """What health should say of models: a breaker for each, by the rules of one for an agent."""

    def __init__(self, config: BreakerConfig, clock: SimulatedClock) -> None:
        self.alone: dict[ModelAt, Health] = {}
        self._config, self._clock = config, clock

    def of(self, subject: ModelAt) -> Health:
        if subject not in self.alone:
            self.alone[subject] = Health(self._clock, lambda _: None, lambda *_: False, self._config)
        return self.alone[subject]


steps = st.lists(
    st.tuples(
        st.sampled_from(["failed", "answered", "nothing", "time", "gone"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["m1", "m2", "m3"]),
        st.sampled_from([0.1, 1.0, 5.0]),
    ),
    max_size=60,
)


@settings(max_examples=examples(60), deadline=None)
@given(steps, st.integers(1, 3), st.integers(1, 2))
def test_each_model_at_each_agent_is_as_an_agent_of_its_own(
    taken: Sequence[tuple[str, str, str, float]], in_a_row: int, probes: int
) -> None:
    """A model has the breaker that an agent would have, were it an agent. Its agent and other models never notice."""
    clock = SimulatedClock()
    config = BreakerConfig(errors=in_a_row, probes=probes, recovery=1.0, longest=4.0, quarantine_trips=0)
    told: list[Subject] = []
    health, model = Health(clock, told.append, lambda *_: False, config), Model(config, clock)
    for what, agent_id, name, seconds in taken:
        subject = ModelAt(agent_id, name)
        if what == "time":
            clock.advance(seconds)
        elif what == "gone":
            health.gone(agent_id)
            for each in [each for each in model.alone if each.agent_id == agent_id]:
                model.alone.pop(each).close()
        else:
            one = model.of(subject)
            sent, alone_sent = health.epoch, one.epoch
            health.sent(subject)
            one.sent("x")
            place = (agent_id, 0)
            if what == "failed":
                health.note(place, BROKEN, sent, (name, "chat"))
                one.note(("x", 0), errors.EngineFailed("x"), alone_sent)
            elif what == "answered":
                health.note(place, None, sent, (name, "chat"))
                one.note(("x", 0), None, alone_sent)
            else:
                health.note(place, errors.InvalidRequest("x"), sent, (name, "chat"))
                one.note(("x", 0), errors.InvalidRequest("x"), alone_sent)
        for each, alone in model.alone.items():
            assert health.state(each) == alone.state("x")
            assert (each.agent_id in health.resting_agents(each.model)) == alone.resting("x")
            assert (each.agent_id in health.doubtful_agents(each.model)) == ("x" in alone.doubtful_agents())
            expected = {} if alone.state("x") == "closed" else {each.model: alone.state("x")}
            assert health.models(each.agent_id).items() >= expected.items()
        assert not health.resting_agents()
        assert not health.doubtful_agents()
        assert health.all_ok == all(alone.all_ok for alone in model.alone.values())
    assert all(isinstance(each, ModelAt) for each in told)
    for agent_id in ("a", "b"):
        health.gone(agent_id)
    assert health.all_ok
    assert not health._models._models
    assert not health._models._resting
    assert not health._models._doubtful


def test_an_agent_that_fails_with_ever_new_models_costs_no_more_memory() -> None:
    clock = SimulatedClock()
    health = Health(clock, lambda _: None, lambda *_: False, BreakerConfig(errors=1))
    for number in range(MOST + 500):
        health.note(("a", 0), BROKEN, health.epoch, (f"m{number}", "chat"))
    assert len(health._records) == len(health.models("a")) == MOST
    assert len(health._models._resting) == MOST
    assert health.state(ModelAt("a", "m0")) == "closed"
    assert health.state(ModelAt("a", f"m{MOST + 499}")) == "open"
    health.close()


def test_a_model_that_is_not_known_is_left_alone() -> None:
    models = FailingModels()
    models.discard(ModelAt("a", "m"))
    assert models.of("a") == []


@pytest.mark.parametrize("seed", range(examples(6)))
async def test_laws_of_agents_hold_whatever_their_models_do(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock, seed: int
) -> None:
    """A client is answered whenever some agent has its model well; models that are well lose nothing by others."""
    rng = random.Random(seed)
    breaker = {"errors": rng.randint(1, 3), "recovery": 1.0, "probes": rng.randint(1, 2), "quarantine_trips": 2}
    pipeline = await pipeline_of(wire, max_attempts=4, breaker=breaker, retries={"floor": 100_000, "base": 0.0})
    laws = HealthLaws(pipeline)
    names = [f"m{number}" for number in range(4)]
    for agent_id in "abc":
        wire.join(agent_id, slots=1000, models=names)
    broken = {(agent_id, names[0]) for agent_id in "ab"} | {("c", names[1])}
    ended: list[events.TaskEnded] = []
    pipeline.events.subscribe("ends", ended.append, events.TaskEnded)
    seen, sent_to_broken = 0, 0
    for _ in range(300):
        chat(pipeline, rng.choice(names))
        clock.advance(rng.uniform(0.0, 0.05))
        while seen < len(wire.requests):
            agent_id, request = wire.requests[seen]
            seen += 1
            if (agent_id, request.model) in broken:
                sent_to_broken += 1
                wire.chunk(request, 0, final=True, error=errors.to_wire(BROKEN))
            else:
                wire.answer(request)
            clock.advance(0.01)
    clock.advance(5.0)
    while seen < len(wire.requests):
        agent_id, request = wire.requests[seen]
        seen += 1
        if (agent_id, request.model) in broken:
            wire.chunk(request, 0, final=True, error=errors.to_wire(BROKEN))
        else:
            wire.answer(request)
        clock.advance(5.0)
    assert not laws.faults
    assert {each.error for each in ended} == {""}
    assert len(ended) == 300
    assert not laws.states, "no agent has ever been anything but well"
    assert sent_to_broken < 60, "a model that fails gets but probes"


def test_a_model_that_fails_below_an_orchestrator_rests_at_that_child() -> None:
    health = Health(SimulatedClock(), lambda _: None, lambda *_: False, BreakerConfig(errors=1, quarantine_trips=1))
    health.note(("child", 0), BROKEN, 0, ("m", "chat"), is_from_below=True)
    assert health.models("child") == {"m": "open"}
    assert health.state("child") == "closed"
    health.note(("child", 0), BROKEN, health.epoch, ("n", "chat"), is_blameless=True)
    assert health.models("child") == {"m": "open"}, "an operator has caused it"
    health.close()


@pytest.mark.parametrize("ended", ["answered", "failed"])
async def test_who_watches_learns_that_a_forgotten_model_is_no_longer_unwell(
    pipeline_of: Make, wire: PuppetTransport, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    monkeypatch.setattr("anywire.pipeline.health.failing_models.MOST", 2)
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=ONE)
    told: list[events.HealthChanged] = []
    pipeline.events.subscribe("test", told.append, events.HealthChanged)
    wire.join("a", slots=100, models=("m1", "m2", "m3"))
    for model in ("m1", "m2", "m3"):
        chat(pipeline, model)
        fail(wire)
    assert [(each.model, each.state) for each in told] == [
        ("m1", "open"),
        ("m2", "open"),
        ("m1", "closed"),
        ("m3", "open"),
    ]
    chat(pipeline, "m1")
    if ended == "answered":
        wire.answer(wire.requests[-1][1])
        assert pipeline.agent_health("a").models == {"m2": "open", "m3": "open"}
    else:
        fail(wire)
        assert pipeline.agent_health("a").models == {"m3": "open", "m1": "open"}
    assert len(pipeline._agent_observation._health) == 2


async def test_a_failed_task_is_no_probe_of_a_model_that_has_just_failed_elsewhere(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire, breaker={"errors": 3})
    for agent_id in ("a", "b", "c"):
        wire.join(agent_id, models=("bad", "good"))
    chat(pipeline, prefer=("a",))
    fail(wire)
    wire.answer(wire.requests[-1][1])
    assert not pipeline.health.resting_agents("bad")
    chat(pipeline, "good", prefer=("c",))
    chat(pipeline, prefer=("b",))
    fail(wire)
    assert last(wire) == ("c", "bad"), "though it has more to do than a"
    chat(pipeline, "good", prefer=("b",))
    fail(wire, errors.EngineFailed("broken"))
    assert last(wire) == ("a", "good"), "a has failed with another model"


async def test_a_task_is_not_sent_again_where_its_model_rests(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, breaker=ONE)
    for agent_id in ("a", "b"):
        wire.join(agent_id, models=("bad", "good"))
    ended: list[events.TaskEnded] = []
    pipeline.events.subscribe("test", ended.append, events.TaskEnded)
    chat(pipeline, prefer=("a",))
    fail(wire)
    wire.answer(wire.requests[-1][1])
    chat(pipeline)
    assert last(wire) == ("b", "bad")
    before = len(wire.requests)
    fail(wire)
    assert len(wire.requests) == before
    assert [each.error for each in ended] == ["", "engine_failed"]


async def test_no_slot_is_taken_from_others_for_a_model_that_rests(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_attempts=1, breaker=ONE)
    wire.join("a", models=("bad", "good"))
    chat(pipeline)
    fail(wire)
    agent = pipeline.registry.agent("a")
    assert agent is not None
    assert not pipeline.registry.would_take(agent, QueueKey("bad", "chat"))
    assert pipeline.registry.would_take(agent, QueueKey("good", "chat"))
