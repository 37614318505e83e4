"""The breaker of one agent or link: a pure state machine over what its attempts came to. It runs no timer and asks no
clock; whoever owns it says what time it is.

``closed``: all is well. After ``errors`` failures in a row, or when of the last ``requests`` attempts a share of
``error_rate`` failed, it opens. ``open``: no task for a while, ``recovery`` seconds at first, twice as long each time
up to ``longest``. ``half_open``: at most ``probes`` tasks at once; the first that goes well closes it, the first that
fails opens it again. How often it has opened is forgotten once it was closed for ``longest`` seconds.

What was sent before its state last changed says nothing of it any more. Epochs tell: numbers that grow with each change
of a state, and that an attempt carries from the moment it is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from anywire.failure_settings import BreakerConfig

State = Literal["closed", "open", "half_open"]


class Breaker:
    """``under_way`` are the probes that have not ended, ``until`` when an open one becomes half-open, ``trips`` how
    often it has opened, ``in_a_row`` the failures since the last answer. ``next_epoch`` numbers changes of state."""

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
            self._begin("closed")
            self._closed_at = now
            self.in_a_row = self._failed = 0
            self._recent.clear()
            return
        self.in_a_row = 0
        self._note(False)
        self._forget_trips(now)

    def failed(self, now: float, epoch: int) -> None:
        """An attempt of ``epoch`` failed. While it is open that changes nothing."""
        if epoch < self._began:
            return
        config = self._config
        self.in_a_row += 1
        if not config.errors or self.state == "open":
            return
        if self.state == "half_open":
            self._open(now)
            return
        self._forget_trips(now)
        self._note(True)
        is_full = len(self._recent) == config.requests
        if self.in_a_row >= config.errors or (is_full and self._failed >= config.error_rate * config.requests):
            self._open(now)

    def recover(self, now: float) -> None:
        """Its time has come: it may be tried. Does nothing unless it is open and `until` is over."""
        if self.state == "open" and now >= self.until:
            self._begin("half_open")

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
