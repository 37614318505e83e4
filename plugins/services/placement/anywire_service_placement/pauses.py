"""How long a model is not started again at an agent, so that one that fails or is pushed out is not loaded for ever."""

from __future__ import annotations

from collections import OrderedDict

from anywire_service_placement.places import Pair

MAX_PAIRS = 10_000
"""Pairs that are remembered; of more, those of the oldest starts are forgotten."""


class Pauses:
    """The first start of a model at an agent is free. Each further one within ``longest`` seconds of the one before
    waits twice as long as that did, at least ``shortest`` and at most ``longest`` seconds from its end on."""

    def __init__(self, shortest: float, longest: float) -> None:
        self.shortest, self._longest = shortest, max(shortest, longest)
        self._ended: OrderedDict[Pair, tuple[float, float]] = OrderedDict()
        """When the newest start ended, and the pause after it."""

    def ended(self, pair: Pair, now: float) -> None:
        """A start of the pair has ended, well or not."""
        before = self._ended.pop(pair, None)
        pause = self.shortest
        if before is not None and now - before[0] <= before[1] + self._longest:
            pause = min(before[1] * 2, self._longest)
        self._ended[pair] = (now, pause)
        if len(self._ended) > MAX_PAIRS:
            self._ended.popitem(last=False)

    def resting(self, now: float) -> dict[Pair, float]:
        """Those that are not to be started now, with the time from which on they may be."""
        return {pair: ended + pause for pair, (ended, pause) in self._ended.items() if now < ended + pause}

    def forget(self) -> None:
        """All may be started: somebody has said what is wanted anew."""
        self._ended.clear()
