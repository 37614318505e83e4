"""What it costs to load models: seconds from the command to its answer, by model."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

MAX_MODELS = 2000
"""Models that are counted; of more, those that were loaded longest ago are forgotten."""


class LoadTime(msgspec.Struct):
    """``seconds`` are those of all ``loads`` together, ``failed`` ones not included."""

    loads: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_seconds: float = 0.0
    longest_seconds: float = 0.0


class LoadTimes:
    def __init__(self) -> None:
        self._times: OrderedDict[str, LoadTime] = OrderedDict()
        self.unloads = 0

    def loaded(self, model: str, seconds: float) -> None:
        time = self._of(model)
        time.loads += 1
        time.seconds += seconds
        time.last_seconds = seconds
        time.longest_seconds = max(time.longest_seconds, seconds)

    def failed(self, model: str) -> None:
        self._of(model).failed += 1

    def told(self) -> dict[str, Any]:
        """As plain JSON types, by model."""
        return {
            model: {
                "loads": time.loads,
                "failed": time.failed,
                "mean_s": round(time.seconds / time.loads, 3) if time.loads else None,
                "last_s": round(time.last_seconds, 3) if time.loads else None,
                "longest_s": round(time.longest_seconds, 3) if time.loads else None,
            }
            for model, time in self._times.items()
        }

    @property
    def total(self) -> LoadTime:
        """Of all models together."""
        times = self._times.values()
        return LoadTime(
            sum(each.loads for each in times),
            sum(each.failed for each in times),
            sum(each.seconds for each in times),
            0.0,
            max((each.longest_seconds for each in times), default=0.0),
        )

    def _of(self, model: str) -> LoadTime:
        time = self._times.setdefault(model, LoadTime())
        self._times.move_to_end(model)
        if len(self._times) > MAX_MODELS:
            self._times.popitem(last=False)
        return time
