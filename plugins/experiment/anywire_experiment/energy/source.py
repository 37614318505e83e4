"""What counts energy, and how often it must be read for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

SAMPLING = 0.1
"""Seconds between two readings of a source that tells its power and not its energy."""
MOST_WATTS = 1000.0
"""Power of one domain with which a counter that wraps must still be read twice in each round."""


class Source(Protocol):
    """One part of a machine whose energy is counted."""

    name: str
    """Such as ``cpu package-0`` or ``gpu 0``."""
    every: float | None
    """Seconds after which it must be read again, None where a counter never wraps."""

    def joules(self, now: float) -> float:
        """Energy since the first call, which gives 0. ``now`` is a monotonic time in seconds. Raises OSError."""


class Wrapping:
    """A counter of microjoules that begins at 0 again after ``most`` of them."""

    def __init__(self, name: str, read: Callable[[], int], most: int) -> None:
        self.name, self._read, self._most = name, read, most
        self.every: float | None = most / 1e6 / MOST_WATTS / 2.0
        self._last: int | None = None
        self._counted = 0

    def joules(self, now: float) -> float:
        value = self._read()
        if self._last is not None:
            more = value - self._last
            self._counted += more if more >= 0 else more + self._most
        self._last = value
        return self._counted / 1e6


class Endless:
    """A counter of millijoules that does not wrap."""

    every: float | None = None

    def __init__(self, name: str, read: Callable[[], int]) -> None:
        self.name, self._read = name, read
        self._last: int | None = None
        self._counted = 0

    def joules(self, now: float) -> float:
        value = self._read()
        if self._last is not None:
            # A driver that was loaded anew begins at 0 again.
            self._counted += value - self._last if value >= self._last else value
        self._last = value
        return self._counted / 1e3


class Sampled:
    """A power in watts, read every `SAMPLING` seconds and integrated by trapezoids."""

    every: float | None = SAMPLING

    def __init__(self, name: str, read: Callable[[], float]) -> None:
        self.name, self._read = name, read
        self._last: tuple[float, float] | None = None
        self._joules = 0.0

    def joules(self, now: float) -> float:
        watts = self._read()
        if self._last is not None:
            then, before = self._last
            self._joules += (watts + before) / 2.0 * (now - then)
        self._last = (now, watts)
        return self._joules
