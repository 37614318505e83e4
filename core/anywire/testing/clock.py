"""A clock that moves only when told to."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class _SimulatedTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SimulatedClock:
    """Drives a pipeline without waiting: `advance` runs what falls due, in order."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._due: list[tuple[float, int, _SimulatedTimer, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = count()

    def now(self) -> float:
        return self._now

    def now_ns(self) -> int:
        return round(self._now * 1e9)

    @property
    def pending(self) -> int:
        """How many timers are set that have neither run nor been cancelled."""
        return sum(not timer.cancelled for _, _, timer, _, _ in self._due)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> _SimulatedTimer:
        timer = _SimulatedTimer()
        heapq.heappush(self._due, (self._now + delay, next(self._numbers), timer, callback, args))
        return timer

    async def sleep(self, delay: float) -> None:
        done = asyncio.get_running_loop().create_future()
        self.call_later(delay, done.set_result, None)
        await done

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while self._due and self._due[0][0] <= end:
            due, _, timer, callback, args = heapq.heappop(self._due)
            self._now = max(self._now, due)
            if not timer.cancelled:
                callback(*args)
        self._now = end

    def pause(self, seconds: float) -> None:
        """Stop the process for so long: time goes on, timers fire late when it is over."""
        self._now += seconds
        self.advance(0)
