"""When this process stood still: its peers may have lost it then, all of them, whichever says so first."""

from __future__ import annotations

import asyncio
import math

LOOKS = 8
"""Looks at the clock in a lease."""

PAUSED = 0.5
"""Of a lease: so late a look means that the process was paused, or its event loop blocked."""


class Pauses:
    """Notices pauses of most of a lease, from `start` to `stop`; ``lease`` is in seconds."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._loop = asyncio.get_running_loop()
        self._looked = self._loop.time()
        self._resumed = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._looked = self._loop.time()
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def resumed(self) -> float:
        """The event loop's time at the end of the last pause; before any other time when there was none."""
        now = self._loop.time()
        if now - self._looked > self._lease * PAUSED:
            self._resumed = now
        self._looked = now
        return self._resumed

    def _look(self) -> None:
        self.resumed()
        self._timer = self._loop.call_later(self._lease / LOOKS, self._look)
