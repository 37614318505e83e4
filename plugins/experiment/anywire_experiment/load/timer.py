"""Waking up at a time given in nanoseconds: the event loop's own timers are rounded up to a millisecond."""

from __future__ import annotations

import asyncio
import os
import time
from types import TracebackType
from typing import Self

from anywire_experiment import timerfd


class PreciseTimer:
    """One timer of the kernel (timerfd, Linux); for one waiter at a time."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has none."""
        self._fd = timerfd.create()
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._loop.add_reader(self._fd, self._expired)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    async def until(self, at_ns: int) -> None:
        """Return at ``at_ns`` of CLOCK_MONOTONIC, at once when that has passed."""
        if at_ns <= time.monotonic_ns():
            return
        timerfd.arm(self._fd, at_ns)
        self._waiter = self._loop.create_future()
        await self._waiter

    def _expired(self) -> None:
        os.read(self._fd, 8)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
