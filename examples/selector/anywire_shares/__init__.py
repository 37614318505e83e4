"""A selector that gives each agent a share of the tasks: a machine twice as fast gets twice as many."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pydantic

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Selector, SelectorConfig

Weight = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]

REMEMBERED = 10_000
"""Agents whose credit is kept. Agents that restart under a new name each time must not fill the memory."""


class SharesConfig(SelectorConfig):
    weights: dict[str, Weight] = pydantic.Field(
        default_factory=dict, description="Share of an agent, by its specialization."
    )
    default_weight: Weight = pydantic.Field(default=1.0, description="Share of every other agent.")


class Shares(Selector):
    """Smooth weighted round robin. Each agent that could take the task earns its weight; the one with the most credit
    gets the task and pays what all have earned. So the shares are exact, and the turns of a heavy agent are spread
    out."""

    name: ClassVar[str] = "shares"
    Config = SharesConfig
    config: SharesConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._credit: dict[str, float] = {}

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView:
        credit = self._credit
        if len(credit) > REMEMBERED:
            credit.clear()
        total = 0.0
        for agent in candidates:
            weight = self.config.weights.get(agent.info.specialization, self.config.default_weight)
            credit[agent.agent_id] = credit.get(agent.agent_id, 0.0) + weight
            total += weight
        chosen = max(candidates, key=lambda agent: credit[agent.agent_id])
        credit[chosen.agent_id] -= total
        return chosen
