"""Waking up at a time given in nanoseconds: the event loop's own timers are rounded up to a millisecond."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import time
from types import TracebackType
from typing import Self

from anywire_experiment.load import timerfd


class PreciseTimer:
    """One timer of the kernel (timerfd, Linux) for any number of waiters."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has none."""
        self._fd = timerfd.create()
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
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
        waiter: asyncio.Future[None] = self._loop.create_future()
        entry = (at_ns, next(self._numbers), waiter)
        heapq.heappush(self._waiting, entry)
        if self._waiting[0] is entry:
            timerfd.arm(self._fd, at_ns)
        await waiter

    def _expired(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it was set to a later time meanwhile
            os.read(self._fd, 8)
        now = time.monotonic_ns()
        while self._waiting and self._waiting[0][0] <= now:
            *_, waiter = heapq.heappop(self._waiting)
            if not waiter.done():
                waiter.set_result(None)
        if self._waiting:
            timerfd.arm(self._fd, self._waiting[0][0])
