"""Replicas that are lost and still count for a while: their agent may be back before another one has loaded them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from anywire_service_placement.places import Pair


class Absences:
    """Remembers what counted at the look before."""

    def __init__(self, lasts: float) -> None:
        self._lasts = lasts
        self._present: frozenset[Pair] = frozenset()
        self._gone: dict[Pair, float] = {}

    def look(self, present: Set[Pair], now: float) -> Counter[str]:
        """How many replicas of each model are absent; ``present`` are those that count now."""
        for pair in self._present - present:
            self._gone.setdefault(pair, now)
        self._present = frozenset(present)
        self._gone = {
            pair: since for pair, since in self._gone.items() if pair not in present and now < since + self._lasts
        }
        return Counter(model for _, model in self._gone)

    def given_up(self, pair: Pair) -> None:
        """It is unloaded because it is to be: that is no absence."""
        self._present -= {pair}
        self._gone.pop(pair, None)

    @property
    def next(self) -> float | None:
        """When the first of them counts no more."""
        return min((since + self._lasts for since in self._gone.values()), default=None)
