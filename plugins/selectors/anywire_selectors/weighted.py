"""Several selectors as scorers, each with a weight."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

import pydantic

from anywire.errors import ConfigError
from anywire.scheduler import Outcome, QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Create, Selector, SelectorConfig

LEAST_LOADED = 8
"""The least loaded candidates that are considered in any case."""


class Scorer(Protocol):
    """A selector that can be a part of `Weighted`. It may have two further methods: ``proposed(task, candidates)``
    gives the few candidates that it would like best, to be considered in any case; ``chosen(task, agent)`` is called
    with the choice."""

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """How well the agent suits the task, 0.0 to 1.0."""
        ...


class WeightedScorer(pydantic.BaseModel):
    """Further members are the scorer's own settings."""

    model_config = pydantic.ConfigDict(extra="allow")

    weight: float = pydantic.Field(default=1.0, gt=0, allow_inf_nan=False)


def _as_weight(value: object) -> object:
    return {"weight": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class WeightedConfig(SelectorConfig):
    scorers: dict[str, Annotated[WeightedScorer, pydantic.BeforeValidator(_as_weight)]] = pydantic.Field(
        default_factory=lambda: {
            "prefix_affinity": WeightedScorer(weight=2.0),
            "least_loaded": WeightedScorer(weight=1.0),
        },
        min_length=1,
        max_length=16,
        description="Selectors that score, by name: a weight, or `weight` and the selector's own settings.",
    )
    saturation: float = pydantic.Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of slots in use from which on an agent gets a task only when no other one is below it.",
    )
    tie: float = pydantic.Field(
        default=0.01, ge=0, le=1, description="Part of the best score by which others may be lower and count as equal."
    )
    tie_break: Literal["least_loaded", "random", "first"] = pydantic.Field(
        default="least_loaded", description="Which of equals gets the task; `first`: the one that joined first."
    )
    considered: int = pydantic.Field(
        default=32,
        ge=1,
        le=1024,
        description="Agents that are scored: of more, those that the scorers propose, the 8 least loaded ones, and "
        "others drawn at random.",
    )


class Weighted(Selector):
    """The agent with the greatest weighted sum of scores.

    Each selector that has a method ``score`` is a scorer; all of this package are. Method: filters and weighted scorers
    as in the Kubernetes scheduler, and in llm-d's and the Gateway API's endpoint picker for language models.
    """

    name: ClassVar[str] = "weighted"
    Config = WeightedConfig
    config: WeightedConfig

    def __init__(self, config: WeightedConfig) -> None:
        super().__init__(config)
        self._rng = random.Random(config.seed)
        self._scorers: list[tuple[str, float, Scorer]] = []
        self._proposing: list[Callable[[QueuedTask, Candidates], Iterable[AgentView]]] = []
        self._told: list[Callable[[QueuedTask, AgentView], None]] = []
        self._learning: list[Callable[[Outcome], None]] = []

    def assemble(self, create: Create) -> None:
        for name, scorer in self.config.scorers.items():
            part: Any = create(
                name, {"seed": self.config.seed} | (scorer.model_extra or {}), f"selector.scorers.{name}"
            )
            if not callable(getattr(part, "score", None)):
                raise ConfigError(f"selector.scorers.{name}: the selector {name!r} has no method score(task, agent)")
            self._scorers.append((name, scorer.weight, part))
            self.wants_prefix = self.wants_prefix or part.wants_prefix
            self._learning.append(part.observed)
            self._proposing += [part.proposed] if hasattr(part, "proposed") else []
            self._told += [part.chosen] if hasattr(part, "chosen") else []

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice:
        agents = self._considered(task, candidates)
        agents = [agent for agent in agents if agent.load < self.config.saturation] or agents
        scores = {agent.agent_id: self.score(task, agent) for agent in agents}
        best = max(scores.values())
        equals = [agent for agent in agents if scores[agent.agent_id] >= best * (1.0 - self.config.tie)]
        agent = self._of_equals(equals)
        choice = Choice(agent, scores, self._reason(task, agent))
        for chosen in self._told:
            chosen(task, agent)
        return choice

    def observed(self, outcome: Outcome) -> None:
        for observed in self._learning:
            observed(outcome)

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """The weighted mean of the scores, 0.0 to 1.0."""
        total = sum(weight * _bounded(scorer.score(task, agent)) for _, weight, scorer in self._scorers)
        return total / sum(weight for _, weight, _ in self._scorers)

    def _considered(self, task: QueuedTask, candidates: Candidates) -> list[AgentView]:
        limit = self.config.considered
        if len(candidates) <= limit:
            return list(candidates)
        found: dict[str, AgentView] = {}
        for proposed in self._proposing:
            found.update((agent.agent_id, agent) for agent in proposed(task, candidates))
        found.update(
            (agent.agent_id, agent) for agent, _ in zip(candidates.by_load(), range(LEAST_LOADED), strict=False)
        )
        found.update((agent.agent_id, agent) for agent in candidates.sample(limit, self._rng))
        return list(found.values())[:limit]

    def _of_equals(self, agents: list[AgentView]) -> AgentView:
        match self.config.tie_break:
            case "random":
                return self._rng.choice(agents)
            case "first":
                return min(agents, key=lambda agent: agent.ordinal)
        return min(agents, key=lambda agent: (agent.load, agent.last_sent, agent.ordinal))

    def _reason(self, task: QueuedTask, agent: AgentView) -> str:
        parts: Mapping[str, float] = {name: scorer.score(task, agent) for name, _, scorer in self._scorers}
        return ", ".join(f"{name} {score:.2f}" for name, score in parts.items())[:400]


def _bounded(score: float) -> float:
    """Within 0 and 1, whatever a scorer says; what is no number is 0."""
    return min(1.0, max(0.0, score)) if score == score else 0.0
