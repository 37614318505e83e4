"""Each agent in turn."""

from __future__ import annotations

from typing import Any, ClassVar

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Selector


class RoundRobin(Selector):
    """The next agent after the one chosen last, in the order they joined; those without a free slot are passed over."""

    name: ClassVar[str] = "round_robin"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._last = -1

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView:
        first: AgentView | None = None
        for agent in candidates:
            first = first or agent
            if agent.ordinal > self._last:
                first = agent
                break
        assert first is not None
        self._last = first.ordinal
        return first
