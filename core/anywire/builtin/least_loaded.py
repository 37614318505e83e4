"""The agent with the most room."""

from __future__ import annotations

from typing import ClassVar

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Selector


class LeastLoaded(Selector):
    """The smallest share of slots in use; among equals, the one that got a task longest ago, so that idle agents take
    turns."""

    name: ClassVar[str] = "least_loaded"

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView:
        return next(candidates.by_load())

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """The share of its slots that is free."""
        return 1.0 - agent.load
