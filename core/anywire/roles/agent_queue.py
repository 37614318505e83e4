"""An agent's own queue: tasks taken in beyond its slots, for the time between two reports.

A hub sends no more than the slots that it knows are free, and other hubs may have taken them since the last report.
Without a queue such a task is refused and sent again; with one it waits here.
"""

from __future__ import annotations

import asyncio

from anywire.engine import EngineProgress
from anywire.errors import AnywireError
from anywire.roles.agent_run import Run


class AgentQueue:
    """At most ``size`` runs, in the order in which they came. It belongs to the event loop."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: dict[Run, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._size

    def add(self, run: Run) -> None:
        """Let a run wait until it has its `turn`, and tell its hub where that asks for progress."""
        run.turn = asyncio.get_running_loop().create_future()
        self._waiting[run] = None
        run.tell_progress(EngineProgress("queued", f"{len(self._waiting)} wait for a slot"))

    async def turn(self, run: Run) -> None:
        """Return once a run may begin, or was asked to stop. Returns at once for one that does not wait."""
        if run.turn is None:
            return
        await run.turn
        self._waiting.pop(run, None)
        if not run.cancelled:
            run.tell_progress(EngineProgress("running"))

    def give_turns(self, free: int) -> None:
        """Let the first ``free`` runs begin."""
        for run in list(self._waiting)[: max(0, free)]:
            del self._waiting[run]
            if run.turn is not None and not run.turn.done():
                run.turn.set_result(None)

    def give_back(self, error: AnywireError) -> None:
        """End all that wait with ``error``: nothing of them was begun."""
        for run in list(self._waiting):
            run.ending = run.ending or error
            run.cancel(str(error))
