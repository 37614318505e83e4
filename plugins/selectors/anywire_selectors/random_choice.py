"""Any agent."""

from __future__ import annotations

import random
from typing import ClassVar

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Selector, SelectorConfig


class Random(Selector):
    """Each candidate with the same probability: the baseline that every other strategy must beat."""

    name: ClassVar[str] = "random"

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__(config)
        self._rng = random.Random(config.seed)

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView:
        return candidates.sample(1, self._rng)[0]
