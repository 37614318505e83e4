"""How long first tokens of each model took lately, for the pipeline to know which are late."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from math import ceil

KEPT = 256
"""Times that are kept of each model: the newest."""
LEAST = 20
"""Times that must be known before one can be late."""
MAX_MODELS = 1024


class FirstTokens:
    """Times in seconds from sent to the first token."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, tuple[deque[float], list[float]]] = OrderedDict()
        """In their order, and sorted."""

    def note(self, model: str, seconds: float) -> None:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = deque(), []
            if len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
        times, ordered = found
        if len(times) == KEPT:
            del ordered[bisect_left(ordered, times.popleft())]
        times.append(seconds)
        insort(ordered, seconds)

    def percentile(self, model: str, percent: float) -> float | None:
        """The least of the times that at least so many percent of all do not exceed; None while too few are known."""
        found = self._models.get(model)
        if found is None or len(found[1]) < LEAST:
            return None
        ordered = found[1]
        return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]
