"""Agents that have the model loaded."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import ClassVar

import pydantic

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Selector, SelectorConfig

LOOKED_AT = 64
"""The least loaded candidates that are looked at; of more, the one that got the model's newest task too."""
MAX_MODELS = 1000


class WarmFirstConfig(SelectorConfig):
    max_load: float = pydantic.Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of slots in use from which on an agent that has the model loaded goes before no other one.",
    )


class WarmFirst(Selector):
    """The least loaded agent whose offer of the model is ``ready``; where there is none, the least loaded one loads it.

    A model that is loaded on demand costs its first task the time of loading (seconds to minutes). With a ``max_load``
    below 1.0 another agent loads the model before those that have it are full. Method: the warm starts of serverless
    inference (Y. Fu et al., "ServerlessLLM: Low-Latency Serverless Inference for Large Language Models", OSDI 2024).
    """

    name: ClassVar[str] = "warm_first"
    Config = WarmFirstConfig
    config: WarmFirstConfig

    def __init__(self, config: WarmFirstConfig) -> None:
        super().__init__(config)
        self._homes: OrderedDict[str, str] = OrderedDict()
        """The agent that got the newest task of a model."""

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice:
        first = next(candidates.by_load())
        agent = next((agent for agent in islice(candidates.by_load(), LOOKED_AT) if self._is_warm(task, agent)), None)
        if agent is None and len(candidates) > LOOKED_AT:
            home = candidates.get(self._homes.get(task.key.model, ""))
            agent = home if home is not None and self._is_warm(task, home) else None
        self.chosen(task, agent or first)
        if agent is None:
            return Choice(first, reason="no agent with room has the model loaded")
        return Choice(agent, reason="it has the model loaded")

    def chosen(self, task: QueuedTask, agent: AgentView) -> None:
        """Remember that ``agent`` gets the task, so that it is found among many."""
        self._homes[task.key.model] = agent.agent_id
        self._homes.move_to_end(task.key.model)
        if len(self._homes) > MAX_MODELS:
            self._homes.popitem(last=False)

    def _is_warm(self, task: QueuedTask, agent: AgentView) -> bool:
        return agent.load < self.config.max_load and self.score(task, agent) > 0

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """1.0 where the first of the task's models that the agent offers is loaded, else 0.0."""
        for key in task.keys:
            offer = agent.offers.get(key.model)
            if offer is not None:
                return float(offer.state == "ready")
        return 0.0
