"""Time as the pipeline sees it, injected everywhere so that a simulated clock can drive it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def now(self) -> float:
        """Seconds on a monotonic scale."""
        ...

    def now_ns(self) -> int:
        """The same scale in nanoseconds; on the system clock this is CLOCK_MONOTONIC, equal across processes
        of one boot."""
        ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call ``callback(*args)`` on the event loop after ``delay`` seconds, unless cancelled before."""
        ...

    async def sleep(self, delay: float) -> None: ...


class SystemClock:
    """The running event loop's clock."""

    now = staticmethod(time.monotonic)
    now_ns = staticmethod(time.monotonic_ns)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback, *args)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)
