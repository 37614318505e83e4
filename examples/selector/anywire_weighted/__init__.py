"""A selector that gives each agent a share of the tasks: a machine twice as fast gets twice as many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import pydantic

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Selector, SelectorConfig

Weight = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]

REMEMBERED = 10_000
"""Agents whose turns are remembered: those that restart under a new name every time must not pile up."""


class WeightedConfig(SelectorConfig):
    weights: dict[str, Weight] = pydantic.Field(
        default_factory=dict, description="the share of an agent, by its specialization"
    )
    default_weight: Weight = pydantic.Field(default=1.0, description="the share of every other agent")


class Weighted(Selector):
    """Smooth weighted round robin. Every agent that could take the task saves up its weight, the one with the most
    savings gets it and pays for all. So the shares are exact, and the turns of a heavy agent are spread out."""

    name: ClassVar[str] = "weighted"
    Config = WeightedConfig
    config: WeightedConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._savings: dict[str, float] = {}

    def select(self, task: QueuedTask, candidates: Sequence[AgentView]) -> AgentView:
        savings = self._savings
        if len(savings) > REMEMBERED:
            savings.clear()
        total = 0.0
        for agent in candidates:
            weight = self.config.weights.get(agent.info.specialization, self.config.default_weight)
            savings[agent.agent_id] = savings.get(agent.agent_id, 0.0) + weight
            total += weight
        chosen = max(candidates, key=lambda agent: savings[agent.agent_id])
        savings[chosen.agent_id] -= total
        return chosen
