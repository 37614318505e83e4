"""What anybody is told of a deliberation that is under way here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from anywire_service_deliberation.history import History
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.record import Deliberation


class Watched:
    """``shown`` is its state; `updates` tell how that changes, and ``told`` is called with each newer one."""

    def __init__(self, state: Deliberation, told: Callable[[Deliberation], None] = lambda state: None) -> None:
        self.shown, self._told = state, told
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once it has ended, or is left to the next process."""
        self._changed = self.ended.get_loop().create_future()
        self._history: History | None = None

    async def updates(self, after: int = 0) -> AsyncGenerator[Update, None]:
        """Its events after that number, as they come, to its end or the end of this process."""
        while True:
            changed = self._changed
            if self._history is None:
                self._history = History()
            self._history.extend(self.shown)
            found = self._history.updates
            for update in found[after:]:
                yield update
                after = update.number  # others may have made more of them meanwhile
            if self.shown.is_final and after > len(found):
                yield found[-1]
                after = len(found)
            # It may have gone on, to its end too, while the last ones were taken.
            if changed is not self._changed:
                continue
            if self.ended.done():
                return
            await asyncio.shield(changed)

    def _show(self, state: Deliberation) -> None:
        self.shown = state
        self._told(state)
        self._tell()

    def _tell(self, *, ended: bool = False) -> None:
        if ended and not self.ended.done():
            self.ended.set_result(None)
        changed, self._changed = self._changed, self.ended.get_loop().create_future()
        if not changed.done():
            changed.set_result(None)
