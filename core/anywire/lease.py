"""Silence measured fairly: time in which this process itself did not run is no silence of its peers.

A process that was paused, or whose event loop was blocked, finds all its timers overdue when it goes on, though its
peers may have spoken all the while. `AwakeTime` is a clock that stands still meanwhile, and `Silence` measures a lease
by it, and lets what waits in the sockets be read before it says that the lease is over.
"""

from __future__ import annotations

from collections.abc import Callable

from anywire.clock import Clock, Timer

TICK = 0.05
"""Seconds between two looks at the clock. A pause counts as one tick at most, however long it was."""


class AwakeTime:
    """Seconds for which the event loop has been turning. It ticks while somebody uses it (`start` … `stop`)."""

    def __init__(self, clock: Clock, tick: float = TICK) -> None:
        self.clock, self.tick = clock, tick
        self._awake = 0.0
        self._ticked = clock.now()
        self._timer: Timer | None = None
        self._users = 0
        self._late = False

    def start(self) -> None:
        """Use it from now on; each call needs its own `stop`."""
        self._users += 1
        if self._users == 1:
            self._ticked, self._late = self.clock.now(), False
            self._timer = self.clock.call_later(self.tick, self._look)

    def stop(self) -> None:
        self._users -= 1
        if not self._users and self._timer is not None:
            self._awake = self.now()
            self._timer.cancel()
            self._timer = None

    def now(self) -> float:
        """Seconds on a scale that only moves while the event loop turns."""
        if self._timer is None:
            return self._awake
        since = self.clock.now() - self._ticked
        return self._awake + (since if since < self.tick else self.tick)

    @property
    def was_away(self) -> bool:
        """Whether the last tick came late: input that came meanwhile may not have been read yet."""
        return self._late or self.clock.now() - self._ticked > 2 * self.tick

    def _look(self) -> None:
        now = self.clock.now()
        self._awake += min(now - self._ticked, self.tick)
        self._late = now - self._ticked > 2 * self.tick
        self._ticked = now
        self._timer = self.clock.call_later(self.tick, self._look)


class Silence:
    """Calls ``lapsed()`` once, when nothing was heard for ``period`` seconds of awake time.

    `heard` costs an assignment: one timer is armed, and armed anew for what is left when it fires. ``lapsed`` is called
    on the event loop; nothing is called after `cancel`, nor after ``lapsed``.
    """

    __slots__ = ("_awake", "_heard", "_lapsed", "_timer", "period")

    def __init__(self, awake: AwakeTime, period: float, lapsed: Callable[[], object]) -> None:
        self.period = period
        self._awake, self._lapsed = awake, lapsed
        awake.start()
        self._heard = awake.now()
        self._timer: Timer | None = awake.clock.call_later(period, self._check)

    @property
    def over(self) -> bool:
        """Whether it has lapsed or was cancelled."""
        return self._timer is None

    def heard(self) -> None:
        """Begin the period anew."""
        self._heard = self._awake.now()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._end()

    def _check(self) -> None:
        awake = self._awake
        left = self._heard + self.period - awake.now()
        if left > 0 or awake.was_away:
            self._timer = awake.clock.call_later(max(left, awake.tick), self._check)
            return
        self._end()
        self._lapsed()

    def _end(self) -> None:
        self._timer = None
        self._awake.stop()
