import math
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import SystemRandom
from typing import Any, ClassVar

import pytest

from anywire.builtin.least_loaded import LeastLoaded
from anywire.plugins import Plugins
from anywire.scheduler import Outcome, QueuedTask
from anywire.selector import AgentView, Candidates, Choice, SelectorConfig
from anywire.testing.selector_kit import SelectorConformance


@cache
def _package() -> Plugins:
    plugins = Plugins()
    plugins.add(str(Path(__file__).with_name("package_selectors.py")))
    return plugins


class _Shipped(SelectorConformance):
    """Made by the same plugins in every test: finding them takes longer than a test."""

    def _make(self, name: str, options: dict[str, Any]) -> Any:
        return _package().create("selectors", name, {**self.options, **options})


class TestRoundRobin(_Shipped):
    selector = "round_robin"


class TestLeastLoaded(_Shipped):
    selector = "least_loaded"


class TestRandom(_Shipped):
    selector = "random"


class TestPowerOfTwo(_Shipped):
    selector = "power_of_two"
    few: ClassVar = {}


class TestLatency(_Shipped):
    selector = "latency"
    few: ClassVar = {"remembered": 100}


class TestSuccess(_Shipped):
    selector = "success"
    few: ClassVar = {"remembered": 100}


class TestSessionAffinity(_Shipped):
    selector = "session_affinity"
    affinity = "session"
    few: ClassVar = {"remembered": 100}


class TestPrefixAffinity(_Shipped):
    selector = "prefix_affinity"
    affinity = "prefix"
    few: ClassVar = {"remembered": 100}

    def most(self, agent: AgentView, agents: list[AgentView]) -> int:
        """Half as many again as the least loaded one, which is no more than the mean."""
        least = min(Fraction(each.in_flight, each.status.slots) for each in agents)
        return math.ceil(Fraction(3, 2) * max(least, Fraction(1, 4)) * agent.status.slots)


class TestPrefixAffinityOfSlots(TestPrefixAffinity):
    """A slot in use serves nobody else, so a task goes on to an agent whose slot with its beginning is idle."""

    options: ClassVar = {"cache": "slots", "skips": 3}
    affinity = ""  # type: ignore[assignment]


class TestWarmFirst(_Shipped):
    selector = "warm_first"
    few: ClassVar = {}


class TestResourceAware(_Shipped):
    selector = "resource_aware"
    few: ClassVar = {}


class TestWeighted(_Shipped):
    selector = "weighted"
    few: ClassVar = {"scorers": {"prefix_affinity": {"weight": 2, "remembered": 100}, "latency": {"remembered": 100}}}


class TestWeightedOfAll(_Shipped):
    selector = "weighted"
    options: ClassVar = {
        "scorers": {
            "power_of_two": 1,
            "latency": 1,
            "success": 1,
            "prefix_affinity": 1,
            "session_affinity": 1,
            "resource_aware": 1,
            "warm_first": 1,
            "fuzzy": 1,
            "weighted": {"weight": 1, "scorers": {"least_loaded": 1}},
        },
        "considered": 4,
        "saturation": 0.9,
        "tie_break": "random",
    }


class TestFuzzy(_Shipped):
    selector = "fuzzy"
    few: ClassVar = {}


class TestByPolicy(_Shipped):
    selector = "by_policy"
    options: ClassVar = {
        "default": "session_affinity",
        "policies": {"fast": {"name": "latency"}, "cached": "prefix_affinity"},
    }
    affinity = "session"


class _WithReasons(LeastLoaded):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        agents = list(candidates)
        return Choice(min(agents, key=_rank), {agent.agent_id: -agent.load for agent in agents}, "the most room")


def _rank(agent: AgentView) -> tuple[float, int]:
    return agent.load, agent.last_sent


class TestOneThatGivesReasons(SelectorConformance):
    def make(self) -> Any:
        return _WithReasons(SelectorConfig())


class _Changes(LeastLoaded):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        agent = super().select(task, candidates)
        agent.in_flight += 1
        return agent


class _IsUnrepeatable(LeastLoaded):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        return candidates.sample(1, SystemRandom())[0]


class _TakesTheFirst(LeastLoaded):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        return next(iter(candidates))


class _GivesNoReason(LeastLoaded):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        return Choice(super().select(task, candidates), {"a0": float("nan")})


class _UsesThePrefix(LeastLoaded):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        return list(candidates)[sum(task.prefix) % len(candidates)]


class _ChoosesOneThatHasGone(LeastLoaded):
    last: AgentView | None = None

    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        chosen, self.last = self.last or super().select(task, candidates), super().select(task, candidates)
        return chosen


class _FillsOneAgent(LeastLoaded):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        return list(candidates.by_load())[-1]


class _ForgetsTheSession(LeastLoaded):
    """It keeps an agent for two tasks of a session."""

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__(config)
        self.homes: dict[str, str] = {}

    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        home = candidates.get(self.homes.pop(task.session, ""))
        if home is not None:
            return home
        agent = super().select(task, candidates)
        self.homes[task.session] = agent.agent_id
        return agent


class _NeedsAGauge(LeastLoaded):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        if any(agent.status.resources and agent.status.resources["vram_free_bytes"] < 1 for agent in candidates):
            return next(iter(candidates))
        return super().select(task, candidates)


class _BreaksOnAnUnknownAgent(LeastLoaded):
    def observed(self, outcome: Outcome) -> None:
        assert outcome.agent_id != "nobody"


class _RemembersAll(_ForgetsTheSession):
    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        self.homes[task.session] = next(iter(candidates)).agent_id
        return next(iter(candidates))


@pytest.mark.parametrize(
    ("planted", "law"),
    [
        (_Changes, "test_one_candidate_is_chosen"),
        (_GivesNoReason, "test_one_candidate_is_chosen"),
        (_IsUnrepeatable, "test_chooses_a_candidate_and_the_same_one_again"),
        (_UsesThePrefix, "test_prefixes_change_nothing_unless_it_wants_them"),
        (_TakesTheFirst, "test_equal_agents_get_equal_shares"),
        (_ChoosesOneThatHasGone, "test_chooses_a_candidate_and_the_same_one_again"),
        (_FillsOneAgent, "test_chooses_a_candidate_and_the_same_one_again"),
        (_ForgetsTheSession, "test_affinity_is_kept_while_its_agent_has_room"),
        (_NeedsAGauge, "test_failures_and_odd_reports_raise_nothing"),
        (_BreaksOnAnUnknownAgent, "test_failures_and_odd_reports_raise_nothing"),
        (_RemembersAll, "test_what_it_remembers_is_bounded"),
    ],
)
def test_the_kit_sees_what_is_wrong(planted: type[LeastLoaded], law: str) -> None:
    class Planted(SelectorConformance):
        affinity = "session"
        few: ClassVar = {}

        def make(self) -> Any:
            return planted(SelectorConfig())

        def _make(self, name: str, options: dict[str, Any]) -> Any:
            return self.make()

        def most(self, agent: AgentView, agents: list[AgentView]) -> int:
            bounded = planted is _FillsOneAgent
            return min(each.in_flight for each in agents) + 2 if bounded else agent.status.slots

        selector = ""

    seeded = getattr(SelectorConformance, law).__code__.co_argcount > 1
    with pytest.raises((AssertionError, KeyError)):
        getattr(Planted(), law)(*((0,) if seeded else ()))
