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

LOADED, LOADING, COLD = 1.0, 0.5, 0.0
"""Scores of an agent: of one that has the model, that loads it, and that would have to."""


class WarmFirstConfig(SelectorConfig):
    max_load: float = pydantic.Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of slots in use from which on an agent that has the model loaded, or loads it, goes before "
        "no other one.",
    )


class WarmFirst(Selector):
    """The least loaded agent whose offer of the model is ``ready``; where there is none, the least loaded of those that
    load it already, and else the least loaded one, which then loads it.

    A model that is loaded on demand costs its first task the time of loading (seconds to minutes). Those that come
    meanwhile wait where it is loaded: a second agent would be ready later, and need its memory too. With a ``max_load``
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
        loading: AgentView | None = None
        for agent in islice(candidates.by_load(), LOOKED_AT):
            warmth = self._warmth(task, agent)
            if warmth == LOADED:
                return self._choice(task, agent, "it has the model loaded")
            if warmth == LOADING:
                loading = loading or agent
        if len(candidates) > LOOKED_AT:
            home = candidates.get(self._homes.get(task.key.model, ""))
            warmth = self._warmth(task, home) if home is not None else COLD
            if home is not None and warmth == LOADED:
                return self._choice(task, home, "it has the model loaded")
            if warmth == LOADING:
                loading = loading or home
        if loading is not None:
            return self._choice(task, loading, "it loads the model already")
        return self._choice(task, first, "no agent with room has the model loaded")

    def _choice(self, task: QueuedTask, agent: AgentView, reason: str) -> Choice:
        self.chosen(task, agent)
        return Choice(agent, reason=reason)

    def chosen(self, task: QueuedTask, agent: AgentView) -> None:
        """Remember that ``agent`` gets the task, so that it is found among many."""
        self._homes[task.key.model] = agent.agent_id
        self._homes.move_to_end(task.key.model)
        if len(self._homes) > MAX_MODELS:
            self._homes.popitem(last=False)

    def _warmth(self, task: QueuedTask, agent: AgentView) -> float:
        return self.score(task, agent) if agent.load < self.config.max_load else COLD

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """1.0 where the first of the task's models that the agent offers is loaded, 0.5 where it is being loaded, else
        0.0."""
        for key in task.keys:
            offer = agent.offers.get(key.model)
            if offer is not None:
                return LOADED if offer.state == "ready" else LOADING if offer.state == "starting" else COLD
        return COLD
