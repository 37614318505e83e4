"""The laws of health in a whole pipeline by a simulated clock: breakers, quarantine, orders and slow start while agents
fail, hang, refuse, come and go, as `tests.health_laws` looks at each attempt that is sent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.acting_wire import ActingWire
from tests.health_laws import HealthLaws
from tests.long_form import examples

from anywire import events
from anywire.pipeline.health.quarantine import LONGEST_PAUSE
from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL

Make = Callable[..., Any]
AGENTS = ("a", "b", "c", "d")
STEPS = 300
MOODS: tuple[float | str, ...] = (0.0, 0.0, 0.6, 1.0, "harmless", "hangs", "deaf")


class Ends:
    """What the tasks of clients came to, by code."""

    def __init__(self, pipeline: Orchestrator) -> None:
        self.codes: Counter[str] = Counter()
        self.by_task: dict[str, str] = {}
        pipeline.events.subscribe("ends", self._ended, events.TaskEnded)

    def _ended(self, event: events.TaskEnded) -> None:
        if event.caller != "anywire:probe":
            self.codes[event.error or "answered"] += 1
            self.by_task[event.task_id] = event.error


def submit(pipeline: Orchestrator, stream: bool = False) -> Any:
    return pipeline.submit(Submission("chat", MODEL, "{}", stream))


def befall(rng: random.Random, wire: ActingWire, pipeline: Orchestrator, clock: SimulatedClock) -> None:
    """One thing happens."""
    agent_id = rng.choice(AGENTS)
    what = rng.choices(["tasks", "time", "mood", "vanish", "appear", "order", "cancel"], [40, 40, 12, 2, 5, 4, 4])[0]
    if what == "tasks":
        for _ in range(rng.randint(1, 6)):
            submit(pipeline)
    elif what == "time":
        clock.advance(rng.choice([0.02, 0.2, 1.0, 6.0]))
    elif what == "mood":
        wire.moods[agent_id] = rng.choice(MOODS)
    elif what == "vanish":
        wire.vanish(agent_id)
    elif what == "appear":
        wire.vanish(agent_id)
        wire.appear(agent_id, rng.randint(1, 6))
    elif what == "order" and pipeline.registry.knows(agent_id):
        pipeline.order_agent(agent_id, rng.choice(["drained", "isolated", "", ""]))
    elif what == "cancel":
        for view in pipeline.tasks()[:3]:
            pipeline.cancel(view.task_id)


@pytest.mark.parametrize("seed", range(examples(8)))
async def test_laws_hold_whatever_happens_and_all_is_well_when_all_goes_well(
    pipeline_of: Make, clock: SimulatedClock, seed: int
) -> None:
    rng = random.Random(seed)
    wire = ActingWire(clock, rng)
    breaker = {
        "errors": rng.randint(1, 3),
        "probes": rng.randint(1, 3),
        "recovery": rng.choice([0.3, 1.0]),
        "quarantine_trips": rng.choice([0, 1, 3]),
        "quarantine_probe": rng.choice([0.5, 3.0]),
        "slow_start": rng.choice([0.0, 2.0]),
        "call_timeout": 2.0,
    }
    pipeline = await pipeline_of(wire, breaker=breaker, agent_wait=2.0, deadline=20.0)
    laws, ends = HealthLaws(pipeline), Ends(pipeline)
    for agent_id in AGENTS:
        wire.appear(agent_id)
    for _ in range(STEPS):
        befall(rng, wire, pipeline, clock)
        assert not laws.faults, laws.faults
    wire.moods.clear()
    for agent_id in AGENTS:
        wire.vanish(agent_id)
        pipeline.order_agent(agent_id, "")
        wire.appear(agent_id)
    for _ in range(200):
        for _ in range(8):
            submit(pipeline)
        clock.advance(0.7)
    clock.advance(60)
    assert not laws.faults, laws.faults
    assert {agent_id: pipeline.health.state(agent_id) for agent_id in AGENTS} == dict.fromkeys(AGENTS, "closed")
    assert not pipeline.tasks()
    assert laws.probes_sent == laws.probes_ended
    assert ends.codes["answered"] > STEPS


@pytest.mark.parametrize("seed", range(examples(3)))
async def test_refusals_cancels_and_faults_of_requests_open_nothing(
    pipeline_of: Make, clock: SimulatedClock, seed: int
) -> None:
    rng = random.Random(seed)
    wire = ActingWire(clock, rng)
    pipeline = await pipeline_of(wire, breaker={"errors": 1, "requests": 2, "error_rate": 0.01}, deadline=2.0)
    laws, ends = HealthLaws(pipeline), Ends(pipeline)
    for agent_id in AGENTS:
        wire.appear(agent_id)
        wire.moods[agent_id] = rng.choice(["harmless", "hangs"])
    wire.moods |= {"a": "harmless", "b": "hangs"}
    for _ in range(150):
        submit(pipeline)
        clock.advance(rng.uniform(0.0, 0.1))
        if rng.random() < 0.2:
            for view in pipeline.tasks()[:2]:
                pipeline.cancel(view.task_id)
    clock.advance(10)
    assert {"invalid_request", "engine_failed", "cancelled", "deadline_exceeded"} <= set(ends.codes)
    assert pipeline.health.all_ok
    assert not laws.states
    assert not laws.faults


@pytest.mark.parametrize(("share", "attempts"), [(1.0, 4), (1.0, 3), (0.6, 4)], ids=str)
async def test_beside_a_good_agent_three_bad_ones_get_but_probes_and_every_client_is_answered(
    pipeline_of: Make, clock: SimulatedClock, share: float, attempts: int
) -> None:
    """For a minute. With three attempts a client may meet all three bad ones, before the first of them is known."""
    rng = random.Random(7)
    wire = ActingWire(clock, rng)
    pipeline = await pipeline_of(wire, max_attempts=attempts)
    laws, ends = HealthLaws(pipeline), Ends(pipeline)
    bad = ("bad1", "bad2", "bad3")
    for agent_id in (*bad, "good"):
        wire.appear(agent_id)
        wire.moods[agent_id] = share if agent_id in bad else 0.0
    sent_open: Counter[str] = Counter()

    def sent(event: events.AttemptSent) -> None:
        sent_open[event.agent_id] += laws.state(event.agent_id) != "closed"

    pipeline.events.subscribe("sent", sent, events.AttemptSent)
    since: set[str] = set()
    """Tasks that came after each bad agent's breaker had opened."""
    for _ in range(1500):
        stream = submit(pipeline, stream=rng.random() < 0.5)
        if all(agent_id in laws.states for agent_id in bad):
            since.add(stream.task_id)
        clock.advance(rng.uniform(0.0, 0.08))
    clock.advance(5)
    assert not laws.faults, laws.faults
    assert len(ends.by_task) == 1500
    assert len(since) > 1000
    failed = {task_id: code for task_id, code in ends.by_task.items() if code}
    assert not since.intersection(failed)
    assert not failed or attempts < 4
    for agent_id in bad:
        states = laws.states[agent_id]
        assert 0 < sent_open[agent_id] <= states.count("half_open") + laws.probes_sent[agent_id]
        assert share < 1 or states[-1] == "quarantined"
    assert "good" not in laws.states


@pytest.mark.parametrize("seed", range(examples(8)))
async def test_an_agent_whose_machine_is_switched_off_again_and_again_is_soon_used_when_it_is_back(
    pipeline_of: Make, clock: SimulatedClock, seed: int
) -> None:
    """Nobody can tell it from one that crashes at each task, so it rests while another agent serves the model. Thrice
    is no more than a short rest, and a machine that is on again long enough is used, however often it was off."""
    rng = random.Random(seed)
    wire = ActingWire(clock, rng)
    breaker = {"recovery": rng.choice([0.5, 1.0]), "longest": rng.choice([5.0, 30.0])}
    pipeline: Orchestrator = await pipeline_of(wire, max_attempts=100, breaker=breaker)
    laws = HealthLaws(pipeline)
    wire.appear("steady", 1000)

    def is_used() -> bool:
        """Whether one more task, which would be there best, is sent there. It is not answered; probes are."""
        before = len(wire.requests)
        wire.moods["often off"] = 0.0 if pipeline.agent_health("often off").state == "quarantined" else "hangs"
        pipeline.submit(Submission("chat", MODEL, "{}", True, prefer=("often off",)))
        clock.advance(0.1)
        is_sent = any(agent_id == "often off" for agent_id, _ in wire.requests[before:])
        return is_sent and wire.moods["often off"] == "hangs"

    states = set[str]()
    for off in range(1, 15):
        wire.appear("often off")
        back, longest = clock.now(), breaker["recovery"] if off <= 4 else max(breaker["longest"], LONGEST_PAUSE)
        while not is_used():
            states.add(pipeline.agent_health("often off").state)
            assert clock.now() - back <= longest + 1, f"off {off} times, and {pipeline.agent_health('often off')}"
            clock.advance(rng.choice([0.0, 0.2, 1.0]))
        wire.vanish("often off")
        clock.advance(rng.choice([0.0, 0.3, 20.0]))
    assert {"open", "quarantined"} <= states
    assert not laws.faults
