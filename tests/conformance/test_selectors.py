from random import SystemRandom
from typing import Any

import pytest

from anywire.builtin.least_loaded import LeastLoaded
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Choice, SelectorConfig
from anywire.testing.strategy_kit import SelectorConformance


class TestRoundRobin(SelectorConformance):
    selector = "round_robin"


class TestLeastLoaded(SelectorConformance):
    selector = "least_loaded"


class TestRandom(SelectorConformance):
    selector = "random"


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


@pytest.mark.parametrize(
    ("planted", "law"),
    [
        (_Changes, "test_one_candidate_is_chosen"),
        (_GivesNoReason, "test_one_candidate_is_chosen"),
        (_IsUnrepeatable, "test_chooses_a_candidate_and_the_same_one_again"),
        (_UsesThePrefix, "test_prefixes_change_nothing_unless_it_wants_them"),
        (_TakesTheFirst, "test_equal_agents_get_equal_shares"),
    ],
)
def test_the_kit_sees_what_is_wrong(planted: type[LeastLoaded], law: str) -> None:
    class Planted(SelectorConformance):
        def make(self) -> Any:
            return planted(SelectorConfig())

    seeds = () if law in ("test_one_candidate_is_chosen", "test_equal_agents_get_equal_shares") else (0,)
    with pytest.raises(AssertionError):
        getattr(Planted(), law)(*seeds)
