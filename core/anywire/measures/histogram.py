"""A histogram that counts as it goes, and keeps a span for each bucket."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from time import time as wall_time

from anywire.measures.families import OTHER, Exemplar, HistogramFamily, HistogramSample, Labels

MOST_SERIES = 2000
"""Different combinations of labels; what has a further one is counted together, each label being `OTHER`. Each is a
line for every bucket, in every scrape."""


class Histogram:
    """Counts of values by labels, in buckets up to and including each of ``bounds``. Whoever observes sees to it that
    each label has a bounded number of values; of their combinations `MOST_SERIES` are counted apart."""

    def __init__(self, name: str, text: str, labels: Labels, bounds: Sequence[float]) -> None:
        self.name, self.text, self.labels, self.bounds = name, text, labels, bounds
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        self._exemplars: dict[Labels, dict[int, Exemplar]] = {}

    def observe(self, labels: Labels, value: float, span: tuple[str, str] | None = None) -> None:
        """Count a value. ``span`` are the ids of trace and span that it is of, where these are kept."""
        counts = self._counts.get(labels)
        if counts is None and len(self._counts) >= MOST_SERIES:
            labels = (OTHER,) * len(labels)
            counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self.bounds) + 1)
            self._sums[labels] = 0.0
        bucket = bisect_left(self.bounds, value)
        counts[bucket] += 1
        self._sums[labels] += value
        if span is not None:
            self._exemplars.setdefault(labels, {})[bucket] = Exemplar(*span, value, wall_time())

    def family(self) -> HistogramFamily:
        """All that was counted, as it is now."""
        samples = [
            HistogramSample(labels, tuple(counts), self._sums[labels], dict(self._exemplars.get(labels, {})))
            for labels, counts in self._counts.items()
        ]
        return HistogramFamily(self.name, self.text, self.labels, self.bounds, samples)
