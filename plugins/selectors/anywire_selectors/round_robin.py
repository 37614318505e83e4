"""Each agent in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Selector


class RoundRobin(Selector):
    """The next agent after the one chosen last, in the order they joined; those without a free slot are passed over."""

    name: ClassVar[str] = "round_robin"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._last = -1

    def select(self, task: QueuedTask, candidates: Sequence[AgentView]) -> AgentView:
        chosen = next((agent for agent in candidates if agent.ordinal > self._last), candidates[0])
        self._last = chosen.ordinal
        return chosen
