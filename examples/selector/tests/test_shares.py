"""The conformance kit, and the law this selector is for."""

import random
from collections import Counter

import pytest

from anywire.errors import ConfigError
from anywire.messages import AgentInfo, AgentStatus
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey
from anywire.selector import AgentView, CandidateList
from anywire.testing.selector_kit import SelectorConformance

TASK = QueuedTask("t", (QueueKey("m", "chat"),))


def agent(ordinal: int, specialization: str) -> AgentView:
    info = AgentInfo(f"a{ordinal}", 1, specialization=specialization)
    return AgentView(info, AgentStatus(info.agent_id, 1, "ready", slots=8), ordinal)


class TestShares(SelectorConformance):
    selector = "shares"


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_exact_at_any_time(seed: int) -> None:
    rng = random.Random(seed)
    weights = {f"s{number}": float(rng.randint(1, 9)) for number in range(4)}
    selector = Plugins().create("selectors", "shares", {"weights": weights})
    agents = CandidateList(agent(ordinal, f"s{ordinal}") for ordinal in range(5))
    share = {view.agent_id: weights.get(view.info.specialization, 1.0) for view in agents}
    counts: Counter[str] = Counter()
    for turn in range(1, 300):
        counts[selector.select(TASK, agents).agent_id] += 1
        for name, weight in share.items():
            assert abs(counts[name] - turn * weight / sum(share.values())) < len(agents)


def test_turns_of_a_heavy_agent_are_spread_out() -> None:
    selector = Plugins().create("selectors", "shares", {"weights": {"large": 2}})
    agents = CandidateList([agent(0, "large"), agent(1, "small"), agent(2, "")])
    assert [selector.select(TASK, agents).ordinal for _ in range(8)] == [0, 1, 2, 0, 0, 1, 2, 0]


def test_a_weight_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"selector\.weights\.large"):
        Plugins().create("selectors", "shares", {"weights": {"large": 0}})
