"""The candidates are a view that is kept as things change: at any time it equals what a look at every agent finds."""

import random
from collections import Counter
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.long_form import examples

from anywire.failure_settings import BreakerConfig
from anywire.lease import AwakeTime
from anywire.messages import AgentInfo, AgentStatus
from anywire.offers import Offer, offers_text
from anywire.pipeline.fleet import groups
from anywire.pipeline.fleet.groups import Without
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.health.health import Health
from anywire.scheduler import QueueKey
from anywire.selector import AgentView, CandidateList
from anywire.testing.clock import SimulatedClock

NAMES = tuple("abcdefg")
names = st.sampled_from(NAMES)
OFFERED = (
    (Offer("m1"),),
    (Offer("m1"), Offer("m2", ("chat",))),
    (Offer("m1", features={"tools": False}), Offer("m2", features={"tools": True, "vision": True})),
    (Offer("m1", ("chat",), {"vision": False}),),
    (Offer("m1", state="stopped"), Offer("m2", state="stopped", on_demand=True)),
    (Offer("m1", state="starting"), Offer("m2", state="crashed")),
    (Offer("m1", digest="other weights"), Offer("m2", state="stopping")),
    (),
)
KEYS = [
    QueueKey(model, kind, needs)
    for model in ("m1", "m2")
    for kind in ("chat", "embedding")
    for needs in ((), ("tools",), ("tools", "vision"))
]


class Candidates(RuleBasedStateMachine):
    """``few`` and ``passed_over`` choose among the ways in which the order of loads is found."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock()
        self.health = Health(self.clock, lambda subject: None, lambda agent_id, served: False, BreakerConfig(errors=1))
        self.told: mock.Mock = mock.Mock()
        self.registry = Registry(["wire"], [False], self.told, AwakeTime(self.clock), self.health, Counter())
        self.incarnations: Counter[str] = Counter()
        self.rng = random.Random(0)
        self.patches: list[Any] = []

    @initialize(few=st.sampled_from([0, 2, 16]), passed_over=st.sampled_from([0, 1, 16]))
    def sizes(self, few: int, passed_over: int) -> None:
        for name, value in (("FEW", few), ("PASSED_OVER", passed_over)):
            self.patches.append(mock.patch.object(groups, name, value))
            self.patches[-1].start()

    @initialize(which=st.lists(st.sampled_from(OFFERED[:4]), min_size=len(NAMES), max_size=len(NAMES)))
    def begin(self, which: list[tuple[Offer, ...]]) -> None:
        for name, offered in zip(NAMES, which, strict=True):
            self.join(name, ("chat",))
            self.report(name, offered, "ready", 4)

    def teardown(self) -> None:
        for patch in self.patches:
            patch.stop()

    @rule(name=names, capabilities=st.sampled_from([("chat",), ("chat", "embedding")]))
    def join(self, name: str, capabilities: tuple[str, ...]) -> None:
        self.incarnations[name] += 1
        self.registry.joined(0, AgentInfo(name, self.incarnations[name], capabilities=capabilities))

    @rule(
        name=names,
        offered=st.sampled_from(OFFERED),
        state=st.sampled_from(["ready", "ready", "ready", "ready", "starting", "draining", "failed"]),
        slots=st.sampled_from([0, 1, 2, 4, 4]),
    )
    def report(self, name: str, offered: tuple[Offer, ...], state: Any, slots: int) -> None:
        incarnation = self.incarnations[name]
        status = AgentStatus(name, incarnation, state, offers_text(offered), slots)
        self.registry.reported(0, name, incarnation, status)

    @rule(name=names)
    def leave(self, name: str) -> None:
        self.registry.lost(0, name, self.incarnations[name], "test")

    @rule(name=names)
    def acquire(self, name: str) -> None:
        agent = self.registry.agent(name)
        if agent is not None:
            self.registry.acquire(agent)

    @rule(name=names)
    def release(self, name: str) -> None:
        agent = self.registry.agent(name)
        if agent is not None and agent.in_flight:
            self.registry.release(agent)

    @rule(name=names, cause=st.sampled_from(["refused", "congested"]), holds=st.booleans())
    def cause(self, name: str, cause: str, holds: bool) -> None:
        agent = self.registry.agent(name)
        if agent is not None:
            (self.registry.set_cause if holds else self.registry.clear_cause)(agent, cause)

    @rule(name=names, fails=st.booleans())
    def health_of(self, name: str, fails: bool) -> None:
        if fails:
            self.health.failed(name, "engine_failed", self.health.epoch)
        else:
            self.health.succeeded(name, self.health.epoch)

    @invariant()
    def view_is_what_a_look_at_every_agent_finds(self) -> None:
        agents = self.registry.agents()
        for key in KEYS:
            serving = [agent for agent in agents if serves(agent, key)]
            assert self.registry.serves(key) == bool(serving)
            ready = [agent for agent in serving if agent.status.state == "ready"]
            assert self.registry.slots(key) == sum(agent.status.slots for agent in ready)
            takers = [agent for agent in serving if agent.offers[key.model].takes_tasks]
            free = [agent for agent in takers if is_free(agent)]
            rested = [agent for agent in free if not self.health.resting(agent.agent_id)]
            others = [agent for agent in takers if agent.status.state == "ready" and agent.status.slots]
            if rested or any(not self.health.resting(agent.agent_id) for agent in others):
                free = rested
            self.check(self.registry.candidates(key), free)

    @invariant()
    def without_some_it_is_the_rest(self) -> None:
        left_out = {*self.rng.sample(NAMES, 3), "a stranger"}
        view = self.registry.candidates(KEYS[0])
        self.check(Without(view, left_out), [agent for agent in view if agent.agent_id not in left_out])

    def check(self, view: Any, agents: list[AgentView]) -> None:
        assert list(view) == agents
        assert (len(view), bool(view)) == (len(agents), bool(agents))
        assert list(view.by_load()) == sorted(agents, key=lambda each: (each.load, each.last_sent, each.ordinal))
        for name in NAMES:
            assert view.get(name) is next((agent for agent in agents if agent.agent_id == name), None)
        for count in (1, 3, 9):
            drawn = view.sample(count, self.rng)
            assert len(drawn) == min(count, len(agents))
            assert len({agent.agent_id for agent in drawn}) == len(drawn)
            assert all(agent in agents for agent in drawn)
            some = list(groups.some(view, count))
            assert some == [agent for agent in agents if agent in some]
            assert len(some) == min(count, len(agents))
        tried = set(self.rng.sample(NAMES, 3))
        assert groups.has_others(view, tried) == any(agent.agent_id not in tried for agent in agents)


def serves(agent: AgentView, key: QueueKey) -> bool:
    offer = agent.offers.get(key.model)
    return (
        agent.status.state != "failed"
        and offer is not None
        and key.kind in (offer.kinds or agent.info.capabilities)
        and (offer.state in ("ready", "starting") or (offer.state == "stopped" and offer.on_demand))
        and not any(offer.features.get(need) is False for need in key.needs)
    )


def is_free(agent: AgentView) -> bool:
    return agent.status.state == "ready" and not agent.unavailable and agent.in_flight < agent.status.slots


TestCandidates = Candidates.TestCase
TestCandidates.settings = settings(max_examples=examples(40), stateful_step_count=40)


def test_each_candidate_is_drawn_as_often_as_any_other() -> None:
    agents = [AgentView(AgentInfo(name, 1), AgentStatus(name, 1), number) for number, name in enumerate(NAMES)]
    rng = random.Random(1)
    rest = Without(CandidateList(agents), {"a", "d"})
    drawn = Counter(agent.agent_id for _ in range(2000) for agent in rest.sample(2, rng))
    assert set(drawn) == set("bcefg")
    assert all(700 < count < 900 for count in drawn.values()), drawn


def test_an_order_that_is_made_while_another_one_lags_behind_is_the_same_as_that() -> None:
    """Who is told of a slow start may ask for candidates before the new number of slots is in the order of loads."""
    clock, told = SimulatedClock(), mock.Mock()
    health = Health(clock, lambda subject: None, lambda agent_id, served: False, BreakerConfig())
    registry = Registry(["wire"], [False], told, AwakeTime(clock), health, Counter(), slow_start=10.0)
    one, both = OFFERED[0], OFFERED[1]

    def report(name: str, offered: tuple[Offer, ...], slots: int) -> None:
        registry.reported(0, name, 1, AgentStatus(name, 1, "ready", offers_text(offered), slots))

    with mock.patch.object(groups, "FEW", 0):
        for name in NAMES:
            registry.joined(0, AgentInfo(name, 1, capabilities=("chat",)))
            report(name, both if name == NAMES[-1] else one, 4)
        clock.advance(5.0)
        busy = registry.agent(NAMES[-1])
        assert busy is not None
        registry.acquire(busy)
        assert [each.agent_id for each in registry.candidates(QueueKey("m1", "chat")).by_load()] == list(NAMES)
        asked: list[AgentView] = []
        alone = QueueKey("m2", "chat")
        told.slow_start.side_effect = lambda agent, given: asked.extend(registry.candidates(alone).by_load())
        report(NAMES[-1], both, 2)
        assert asked == [busy]
        registry.release(busy)
        registry.acquire(busy)
        assert list(registry.candidates(alone).by_load()) == [busy]
        assert [each.agent_id for each in registry.candidates(QueueKey("m1", "chat")).by_load()] == list(NAMES)
