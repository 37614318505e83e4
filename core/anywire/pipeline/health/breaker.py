"""The breaker of one agent or link: a pure state machine over what its attempts came to. It runs no timer and asks no
clock; whoever owns it says what time it is.

=========  ===================================  ===============================================================
state      tasks that may be sent               what ends it
=========  ===================================  ===============================================================
closed     all                                  ``errors`` failures in a row, or ``error_rate`` of the last
                                                ``requests`` attempts failed: it opens
open       none                                 its time is over: half-open; an answer: closed
half_open  at most ``probes`` under way         the first answer: closed; the first failure: open again
=========  ===================================  ===============================================================

It is open for ``recovery`` seconds at first, twice as long each time up to ``longest``. How often it has opened is
forgotten once it was closed for ``longest`` seconds.

Not counted: what ends in a way that says nothing (`Breaker.neutral`), and what was sent before its state last changed.
Epochs tell: numbers that grow with each change of a state, and that an attempt carries from the moment it is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from anywire.failure_settings import BreakerConfig

State = Literal["closed", "open", "half_open"]


class Breaker:
    """``under_way`` are the tasks sent while it is half-open that have not ended, ``until`` when an open one becomes
    half-open, ``trips`` how often it has opened, ``in_a_row`` the failures since the last answer. ``next_epoch``
    numbers changes of state."""

    __slots__ = (
        "_began",
        "_closed_at",
        "_config",
        "_failed",
        "_next_epoch",
        "_recent",
        "in_a_row",
        "state",
        "trips",
        "under_way",
        "until",
    )

    def __init__(self, config: BreakerConfig, next_epoch: Callable[[], int]) -> None:
        self._config, self._next_epoch = config, next_epoch
        self.state: State = "closed"
        self.in_a_row = self.trips = self.under_way = self._failed = self._began = 0
        self._recent: deque[bool] = deque(maxlen=config.requests)
        """What the last attempts came to while it was closed: whether each failed."""
        self.until = self._closed_at = 0.0

    @property
    def is_blank(self) -> bool:
        """Whether it knows of no failure: a new one would do the same."""
        return self.state == "closed" and not self._failed and not self.trips

    @property
    def is_doubtful(self) -> bool:
        """Whether it is not closed, or the last attempt failed."""
        return self.state != "closed" or self.in_a_row > 0

    @property
    def allows(self) -> bool:
        """Whether a task may be sent now."""
        return self.state == "closed" or (self.state == "half_open" and self.under_way < self._config.probes)

    def sent(self) -> None:
        """A task is on its way."""
        if self.state == "half_open":
            self.under_way += 1

    def neutral(self, epoch: int) -> None:
        """An attempt of ``epoch`` ended in a way that says nothing: if it was a probe, another one may be made."""
        if self.under_way and epoch >= self._began:
            self.under_way -= 1

    def succeeded(self, now: float, epoch: int) -> None:
        """An attempt of ``epoch`` was answered."""
        if epoch < self._began:
            return
        if self.state != "closed":
            self.close(now)
            return
        self.in_a_row = 0
        self._note(False)
        self._forget_trips(now)

    def failed(self, now: float, epoch: int) -> bool:
        """An attempt of ``epoch`` failed. While it is open that changes nothing. Returns whether the failure counts:
        False for one that was sent before the state last changed."""
        if epoch < self._began:
            return False
        config = self._config
        self.in_a_row += 1
        if self.state == "half_open":
            self._open(now)
        elif self.state == "closed":
            self._forget_trips(now)
            self._note(True)
            is_full = len(self._recent) == config.requests
            if self.in_a_row >= config.errors or (is_full and self._failed >= config.error_rate * config.requests):
                self._open(now)
        return True

    def recover(self, now: float) -> None:
        """Its time has come: it may be tried. Does nothing unless it is open and `until` is over."""
        if self.state == "open" and now >= self.until:
            self._begin("half_open")

    def close(self, now: float) -> None:
        """All is well (again): it was answered, or has passed a probe in quarantine."""
        self._begin("closed")
        self._closed_at = now
        self.in_a_row = self._failed = 0
        self._recent.clear()

    def _open(self, now: float) -> None:
        config = self._config
        self._begin("open")
        self.until = now + min(config.recovery * 2 ** min(self.trips, 32), max(config.longest, config.recovery))
        self.trips += 1

    def _begin(self, state: State) -> None:
        self.state, self.under_way, self._began = state, 0, self._next_epoch()

    def _forget_trips(self, now: float) -> None:
        if self.trips and now - self._closed_at >= self._config.longest:
            self.trips = 0

    def _note(self, failed: bool) -> None:
        recent = self._recent
        if len(recent) == recent.maxlen:
            self._failed -= recent[0]
        recent.append(failed)
        self._failed += failed
