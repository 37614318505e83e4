"""Models that have failed at an agent while the agent itself is well."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

MOST = 1000
"""Models of one agent whose failures are kept, as many as it may offer. The one that began to fail first makes room."""
NOBODY: frozenset[str] = frozenset()


class ModelAt(NamedTuple):
    agent_id: str
    model: str


class FailingModels:
    """By agent, the models that it has failed with; by model, the agents where it rests, and those where it is
    doubtful."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, None]] = {}
        self._resting: dict[str, set[str]] = {}
        self._doubtful: dict[str, set[str]] = {}

    def of(self, agent_id: str) -> list[ModelAt]:
        return [ModelAt(agent_id, model) for model in self._models.get(agent_id, ())]

    def resting(self, model: str) -> Set[str]:
        return self._resting.get(model, NOBODY)

    def doubtful(self, model: str) -> Set[str]:
        return self._doubtful.get(model, NOBODY)

    def add(self, subject: ModelAt) -> ModelAt | None:
        """A model has failed for the first time. Returns the one that is to be forgotten for it, where there are too
        many."""
        models = self._models.setdefault(subject.agent_id, {})
        oldest = ModelAt(subject.agent_id, next(iter(models))) if len(models) >= MOST else None
        models[subject.model] = None
        return oldest

    def settle(self, subject: ModelAt, rests: bool, is_doubtful: bool) -> None:
        for kept, belongs in ((self._resting, rests), (self._doubtful, is_doubtful)):
            agents = kept.setdefault(subject.model, set())
            keep(agents, subject.agent_id, belongs)
            if not agents:
                del kept[subject.model]

    def discard(self, subject: ModelAt) -> None:
        """It is as one that has never failed."""
        self.settle(subject, False, False)
        models = self._models.get(subject.agent_id)
        if models is not None:
            models.pop(subject.model, None)
            if not models:
                del self._models[subject.agent_id]


def keep(kept: set[str], agent_id: str, belongs: bool) -> None:
    """Have an agent among ``kept`` exactly where it ``belongs`` there."""
    if belongs:
        kept.add(agent_id)
    else:
        kept.discard(agent_id)
