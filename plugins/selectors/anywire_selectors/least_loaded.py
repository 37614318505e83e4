"""The agent with the most room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Selector

REMEMBERED = 1024
"""Agents of which it is known when they were chosen."""


class LeastLoaded(Selector):
    """The smallest share of slots in use; among equals, the one chosen longest ago, so that idle agents take turns."""

    name: ClassVar[str] = "least_loaded"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._turn = 0
        self._chosen: OrderedDict[int, int] = OrderedDict()

    def select(self, task: QueuedTask, candidates: Sequence[AgentView]) -> AgentView:
        chosen = candidates[0]
        if len(candidates) > 1:
            turns = self._chosen
            chosen = min(
                candidates, key=lambda agent: (agent.in_flight / agent.status.slots, turns.get(agent.ordinal, -1))
            )
        self._turn += 1
        self._chosen[chosen.ordinal] = self._turn
        self._chosen.move_to_end(chosen.ordinal)
        if len(self._chosen) > REMEMBERED:
            self._chosen.popitem(last=False)
        return chosen
