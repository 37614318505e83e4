"""Looking for the next message instead of sleeping, for a moment after each one.

An event loop that sleeps is woken by Cyclone's thread through the kernel. On a virtual machine whose other cores are
idle that takes as long as everything else that a message needs. A loop that stays awake sees the message at once, and
uses a core meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

MISSES = 4
"""Messages in a row that came later than the loop would have looked: after so many it sleeps as before."""

TRIED_AGAIN = 64
"""Of such messages, every how many-th is looked for all the same: looking itself makes answers come sooner."""

JUDGED = 0.01
"""Seconds of looking after which it is seen how much of a core this thread has had."""

ENOUGH = 0.8
"""Of a core. With less others want it, and looking takes it from them."""

RESTS = 1.0
"""Seconds without looking after that."""

POWER = 30.0
"""Seconds between two looks at whether the machine is on battery."""


def on_battery() -> bool:
    """Whether this machine runs on its battery; False where that is not known."""
    import psutil  # here, so that only those who look for messages load it

    with contextlib.suppress(AttributeError, OSError, NotImplementedError):
        battery = psutil.sensors_battery()
        return battery is not None and battery.power_plugged is False
    return False


def _others_first() -> None:
    if hasattr(os, "sched_yield"):  # some systems have none
        os.sched_yield()


class BusyPoll:
    """Keeps the event loop from sleeping for ``seconds`` after each message, where that pays.

    `sent` and `received` are called for each message of a link. The loop then goes on to turn, in which it sees all its
    sockets, until nothing has come or gone for ``seconds``. It sleeps as before

    - when `MISSES` messages in a row came later than that, except for one in `TRIED_AGAIN`;
    - for `RESTS` seconds when this thread got less than `ENOUGH` of a core while it looked;
    - while the machine is on battery.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        core_time: Callable[[], float] = time.thread_time,
        on_battery: Callable[[], bool] = on_battery,
        others_first: Callable[[], None] = _others_first,
    ) -> None:
        """``clock`` and ``core_time`` are in seconds, of the world and of this thread; ``others_first`` lets another
        thread have the core that wants it."""
        self._seconds = seconds
        self._clock, self._core_time = clock, core_time
        self._on_battery, self._others_first = on_battery, others_first
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None
        self._newest = clock()
        self._looked, self._had_core = 0.0, 0.0
        self._since: tuple[float, float] = (0.0, 0.0)
        self._misses = 0
        self._rests_until = 0.0
        self._power_known_until = 0.0

    def looks(self) -> bool:
        """Whether the loop is kept from sleeping now."""
        return self._next is not None

    def sent(self) -> None:
        """A message has gone out: its answer may come soon."""
        self._newest = self._clock()
        if self._next is None:
            self._begin()

    def received(self) -> None:
        """Messages have come: the next ones may follow soon."""
        now = self._clock()
        self._misses = 0 if now - self._newest <= self._seconds else self._misses + 1
        self._newest = now
        if self._next is None:
            self._begin()

    def stop(self) -> None:
        """Let the loop sleep, now and from now on. Safe to call twice."""
        self._rests_until = float("inf")
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _begin(self) -> None:
        now = self._newest
        if (self._misses >= MISSES and self._misses % TRIED_AGAIN) or now < self._rests_until:
            return
        if now >= self._power_known_until:
            self._power_known_until = now + POWER
            if self._on_battery():
                self._rests_until = self._power_known_until
                return
        self._since = now, self._core_time()
        self._next = self._loop.call_soon(self._look)

    def _look(self) -> None:
        now = self._clock()
        is_over = now - self._newest >= self._seconds
        if is_over or now - self._since[0] >= JUDGED:
            self._judge(now)
            if is_over or now < self._rests_until:
                self._next = None
                return
        self._others_first()
        self._next = self._loop.call_soon(self._look)

    def _judge(self, now: float) -> None:
        """Add up how long the loop has looked, and rest if others wanted the core meanwhile."""
        began, had = self._since
        core_time = self._core_time()
        self._since = now, core_time
        self._looked += now - began
        self._had_core += core_time - had
        if self._looked >= JUDGED:
            if self._had_core < ENOUGH * self._looked:
                self._rests_until = now + RESTS
            self._looked = self._had_core = 0.0
