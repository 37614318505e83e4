"""Changes of models as a stream, so that a program reads them at its own pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from anywire.event_bus import Missed
from anywire_engine_models.host.status import Listener, ModelChanged

MAX_KEPT = 256
"""Changes kept for a reader that is behind."""


class Changes:
    """What happens to models from now on: ``async for change in changes``. Close it, or use it as a context manager.

    It holds back nobody: of a reader that is more than `MAX_KEPT` changes behind the oldest ones are left out, and
    `Missed` stands in their place: ask for the state of the models again.
    """

    def __init__(self, listen: Callable[[Listener], Callable[[], None]]) -> None:
        self._kept: deque[ModelChanged] = deque()
        self._missed = 0
        self._closed = False
        self._more = asyncio.Event()
        self._stop = listen(self._take)

    def close(self) -> None:
        """End the stream: what was not read is dropped. Safe to call twice."""
        self._closed = True
        self._stop()
        self._kept.clear()
        self._more.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ModelChanged | Missed:
        while not (self._closed or self._kept):
            self._more.clear()
            await self._more.wait()
        if self._closed:
            raise StopAsyncIteration
        if self._missed:
            missed, self._missed = Missed(self._missed), 0
            return missed
        return self._kept.popleft()

    def _take(self, change: ModelChanged) -> None:
        if len(self._kept) == MAX_KEPT:
            self._kept.popleft()
            self._missed += 1
        self._kept.append(change)
        self._more.set()
