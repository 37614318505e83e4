"""The agent that answers soonest."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import Any, ClassVar, Literal

import pydantic

from anywire.scheduler import Outcome, QueuedTask
from anywire.selector import FAILED_LATENCY_MS, AgentView, Candidates, Choice, Selector, SelectorConfig


class LatencyConfig(SelectorConfig):
    measure: Literal["first", "total"] = pydantic.Field(
        default="first", description="Time that counts: until the first token, or until the end."
    )
    smoothing: float = pydantic.Field(
        default=0.3,
        gt=0,
        le=1,
        description="Weight of a new time that is shorter than expected; a longer one counts whole.",
    )
    failure_ms: float = pydantic.Field(
        default=FAILED_LATENCY_MS,
        gt=0,
        allow_inf_nan=False,
        description="Milliseconds that a failure counts as, at least.",
    )
    half_life: float = pydantic.Field(
        default=50.0,
        gt=0,
        allow_inf_nan=False,
        description="Attempts of the others, per agent known, after which an agent that gets none is expected to take "
        "half as long.",
    )
    reference_ms: float = pydantic.Field(
        default=1000.0, gt=0, allow_inf_nan=False, description="Milliseconds that score 0.5, as a scorer."
    )
    considered: int = pydantic.Field(
        default=16, ge=1, le=1024, description="Agents that are compared; of more, so many drawn at random."
    )
    remembered: int = pydantic.Field(default=10_000, ge=1, description="Agents whose times are kept.")


class Latency(Selector):
    """The smallest expected time multiplied by the attempts that the agent would then have.

    Method: the peak-sensitive EWMA of Finagle (Twitter, "Finagle: aperture and peak EWMA load balancers",
    ``PeakEwma.scala``). A time longer than expected is believed at once, shorter ones are smoothed. A failure of the
    agent or its link counts as ``failure_ms``. Time is counted in attempts of the whole fleet and not in seconds, so
    that an experiment can be repeated: an agent that gets no task is slowly forgiven, and so tried again. A new agent
    gets one task, to be measured; what comes before that has ended expects the mean of all.
    """

    name: ClassVar[str] = "latency"
    Config = LatencyConfig
    config: LatencyConfig

    def __init__(self, config: LatencyConfig) -> None:
        super().__init__(config)
        self._rng = random.Random(config.seed)
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Expected time, and the number of the attempt after which it was so; the one that ended last is last."""
        self._ended = 0
        self._mean = 0.0

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice:
        costs = {agent: self._cost(agent) for agent in candidates.sample(self.config.considered, self._rng)}
        best = min(costs, key=costs.__getitem__)
        reference = self.config.reference_ms
        scores = {agent.info.agent_id: reference / (reference + cost[0]) for agent, cost in costs.items()}
        return Choice(best, scores, f"{costs[best][0]:.0f} ms expected with {best.in_flight + 1} attempts on it")

    def observed(self, outcome: Outcome) -> None:
        took = outcome.total_ms if self.config.measure == "total" else outcome.first_ms or outcome.total_ms
        if outcome.agent_failed:
            took = max(took, self.config.failure_ms)
        elif outcome.error:
            return  # cancelled or refused: that says nothing of its speed
        self._ended += 1
        known = self._known
        expected = self.expected_ms(outcome.agent_id) if outcome.agent_id in known else took
        expected = took if took > expected else expected + self.config.smoothing * (took - expected)
        known[outcome.agent_id] = expected, self._ended
        known.move_to_end(outcome.agent_id)
        if len(known) > self.config.remembered:
            known.popitem(last=False)
        self._mean += (took - self._mean) / min(self._ended, 100)

    def expected_ms(self, agent_id: str) -> float:
        """Milliseconds until its next answer begins (or ends, see ``measure``); 0.0 for one not measured yet."""
        expected, at = self._known.get(agent_id, (0.0, 0))
        idle = (self._ended - at) / (self.config.half_life * max(1, len(self._known)))
        return expected * math.exp2(-idle)

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """1.0 for no time at all, 0.5 for ``reference_ms``."""
        return self.config.reference_ms / (self.config.reference_ms + self.expected_ms(agent.agent_id))

    def _cost(self, agent: AgentView) -> tuple[Any, ...]:
        expected = self.expected_ms(agent.agent_id)
        if agent.in_flight and agent.agent_id not in self._known:
            expected = self._mean
        return expected * (agent.in_flight + 1), agent.load, agent.last_sent
