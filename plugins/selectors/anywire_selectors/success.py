"""The agent that fails least."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import ClassVar

import pydantic

from anywire.scheduler import Outcome, QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Selector, SelectorConfig


class SuccessConfig(SelectorConfig):
    smoothing: float = pydantic.Field(default=0.1, gt=0, le=1, description="Weight of the newest attempt in the rate.")
    tolerance: float = pydantic.Field(
        default=0.05,
        gt=0,
        le=1,
        description="Width of the steps in which rates are compared; in one step the load decides.",
    )
    half_life: float = pydantic.Field(
        default=50.0,
        gt=0,
        allow_inf_nan=False,
        description="Attempts of the others, per agent known, after which half of the failures of an agent that gets "
        "none are forgiven.",
    )
    considered: int = pydantic.Field(
        default=16, ge=1, le=1024, description="Agents that are compared; of more, so many drawn at random."
    )
    remembered: int = pydantic.Field(default=10_000, ge=1, description="Agents whose rates are kept.")


class Success(Selector):
    """The highest rate of attempts at which neither the agent nor its link failed; of equals the least loaded.

    Method: an exponentially weighted moving average (S. W. Roberts, "Control Chart Tests Based on Geometric Moving
    Averages", Technometrics 1 (3), 1959), 1.0 for a new agent. The failures of an agent that gets no task are forgiven
    as attempts end elsewhere, so that it is tried again. Cancels, refusals and requests at fault count as nothing.
    """

    name: ClassVar[str] = "success"
    Config = SuccessConfig
    config: SuccessConfig

    def __init__(self, config: SuccessConfig) -> None:
        super().__init__(config)
        self._rng = random.Random(config.seed)
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Rate of failures, and the number of the attempt after which it was so; the one that ended last is last."""
        self._ended = 0

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice:
        rates = {
            agent: self.rate(agent.info.agent_id) for agent in candidates.sample(self.config.considered, self._rng)
        }
        best = min(rates, key=lambda agent: self._rank(agent, rates[agent]))
        scores = {agent.info.agent_id: rate for agent, rate in rates.items()}
        return Choice(best, scores, f"{rates[best]:.0%} of its attempts are expected to succeed")

    def observed(self, outcome: Outcome) -> None:
        if outcome.error and not outcome.agent_failed:
            return
        self._ended += 1
        failures = self._failures
        rate = 1.0 - self.rate(outcome.agent_id)
        rate += self.config.smoothing * (float(outcome.agent_failed) - rate)
        failures[outcome.agent_id] = rate, self._ended
        failures.move_to_end(outcome.agent_id)
        if len(failures) > self.config.remembered:
            failures.popitem(last=False)

    def rate(self, agent_id: str) -> float:
        """The share of its attempts that is expected to succeed, 0.0 to 1.0."""
        rate, at = self._failures.get(agent_id, (0.0, 0))
        idle = (self._ended - at) / (self.config.half_life * max(1, len(self._failures)))
        return 1.0 - rate * math.exp2(-idle)

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """Its rate."""
        return self.rate(agent.agent_id)

    def _rank(self, agent: AgentView, rate: float) -> tuple[int, float, int]:
        return int((1.0 - rate) / self.config.tolerance), agent.load, agent.last_sent
