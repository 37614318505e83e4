"""The less loaded of two agents drawn at random."""

from __future__ import annotations

import random
from typing import ClassVar

import pydantic

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Selector, SelectorConfig


class PowerOfTwoConfig(SelectorConfig):
    choices: int = pydantic.Field(default=2, ge=1, le=64, description="Agents that are drawn at random and compared.")


class PowerOfTwo(Selector):
    """Draws ``choices`` candidates at random and takes the one with the smallest share of slots in use.

    Method: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12 (10), 2001. Two
    choices in place of one make the longest queue exponentially shorter; each further one gains little. Unlike the
    least loaded agent of all, which every orchestrator that looks at the same old report would choose at once, the
    choices of several orchestrators differ.
    """

    name: ClassVar[str] = "power_of_two"
    Config = PowerOfTwoConfig
    config: PowerOfTwoConfig

    def __init__(self, config: PowerOfTwoConfig) -> None:
        super().__init__(config)
        self._rng = random.Random(config.seed)

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice:
        drawn = candidates.sample(self.config.choices, self._rng)
        scores = {agent.info.agent_id: 1.0 - agent.load for agent in drawn}
        return Choice(min(drawn, key=_load), scores, "the least loaded of those drawn")

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """The share of its slots that is free."""
        return 1.0 - agent.load


def _load(agent: AgentView) -> tuple[float, int]:
    return agent.load, agent.last_sent
