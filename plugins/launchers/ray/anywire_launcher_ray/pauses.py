"""Pauses before something that ended is started again."""

from __future__ import annotations

LONGEST = 30.0
"""Seconds of the longest pause, and how long a life must have been for the pauses to begin anew."""


class Pauses:
    """Each is twice as long as the one before, from ``first`` to 30 s."""

    def __init__(self, first: float = 0.5) -> None:
        self._first = self._next = first

    def after(self, life: float) -> float:
        """The seconds to wait after a life of that many seconds."""
        if life > LONGEST:
            self._next = self._first
        pause, self._next = self._next, min(2 * self._next, LONGEST)
        return pause
