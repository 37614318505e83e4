"""One agent that was started on demand, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from anywire.errors import AnywireError
from anywire.launcher import RunningProcess
from anywire.printable import printable

log = logging.getLogger(__name__)

Start = Callable[[], Awaitable[RunningProcess]]


class ExtraAgent:
    """Starts at once. ``changed`` is called when its process became ready or could not be started, and when it has
    ended for good. Needs a running event loop."""

    def __init__(
        self, agent_id: str, sort: int, start: Start, now: float, changed: Callable[[ExtraAgent], None]
    ) -> None:
        self.agent_id, self.sort, self.since = agent_id, sort, now
        """``since``: when it first served, or was started."""
        self.has_served = self.leaving = self.over = False
        self.ready_since: float | None = None
        """When its process was ready; it may not have joined. Set by who is told of it."""
        self.is_missed = False
        """Whether it was said that it does not join."""
        self.failure = ""
        """Why it ended although nobody has ended it."""
        self._start, self._changed = start, changed
        self._process: RunningProcess | None = None
        self._living: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._live())
        self._living.add_done_callback(self._is_over)

    async def stop(self, grace: float) -> None:
        """End it; returns when nothing of it is left. A launcher that fails at it is logged."""
        self.leaving = True
        if self._process is not None:
            try:
                await self._process.stop(grace)
            except Exception:
                log.exception("agent %s: the launcher failed to stop it", self.agent_id)
                self._living.cancel()
        elif not self.over:
            self._living.cancel()
        await asyncio.wait((self._living,))

    async def _live(self) -> None:
        try:
            self._process = await self._start()
            if self.leaving:
                await self._process.stop(0)
                return
            await self._process.ready()
            self._changed(self)
            ending = await self._process.ended()
            if not self.leaving:
                self.failure = f"it ended for good: {printable(ending)}"
        except AnywireError as error:
            self.failure = "" if self.leaving else str(error)
        except Exception as error:
            log.exception("agent %s: the launcher failed", self.agent_id)
            self.failure = f"the launcher failed: {type(error).__name__}: {printable(str(error))}"

    def _is_over(self, living: asyncio.Task[None]) -> None:
        # Also of one that is cancelled before its first step.
        self.over = True
        self._changed(self)
