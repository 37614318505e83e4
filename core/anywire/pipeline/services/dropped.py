"""What agents had no right to send, or sent out of type and bounds: dropped, counted, and logged once per agent."""

from __future__ import annotations

import logging
from collections import Counter

from anywire.once_log import OnceLog
from anywire.printable import printable

log = logging.getLogger(__name__)


class Dropped:
    """``counts`` are the ``events`` of `Orchestrator.stats`."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._once = OnceLog(log)

    def count(self, name: str) -> None:
        """Count what is no fault of its sender."""
        self._counts[name] += 1

    def foreign(self, agent_id: str, what: str) -> None:
        """An agent spoke for another one."""
        self._drop("foreign_messages", agent_id, what)

    def claim(self, agent_id: str, what: str) -> None:
        """A message was out of type or bounds."""
        self._drop("claims_rejected", agent_id, what)

    def _drop(self, name: str, agent_id: str, what: str) -> None:
        self._counts[name] += 1
        agent = printable(str(agent_id)[:80])
        self._once.warn(agent, "agent %s sent %s; dropped", agent, what)
