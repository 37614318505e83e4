"""A histogram that counts as it goes, and keeps a span for each bucket."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from time import time as wall_time

from anywire.measures.families import OTHER, Exemplar, HistogramFamily, HistogramSample, Labels

MOST_SERIES = 2000
"""Different combinations of labels; what has a further one is counted together, each label being `OTHER`. Each is a
line for every bucket, in every scrape."""


class Series:
    """Counts of the values of one combination of labels. ``bounds`` are those of its histogram; of ``counts``, the last
    one is beyond all bounds. ``exemplars`` is by the bucket's number, None while there is none."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0
        self.exemplars: dict[int, Exemplar] | None = None

    def observe(self, value: float, span: tuple[str, str] | None = None) -> None:
        """Count a value. ``span`` are the ids of trace and span that it is of, where these are kept."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if span is not None:
            if self.exemplars is None:
                self.exemplars = {}
            self.exemplars[bucket] = Exemplar(*span, value, wall_time())


class Histogram:
    """Counts of values by labels, in buckets up to and including each of ``bounds``. Whoever observes sees to it that
    each label has a bounded number of values; of their combinations `MOST_SERIES` are counted apart."""

    def __init__(self, name: str, text: str, labels: Labels, bounds: Sequence[float]) -> None:
        self.name, self.text, self.labels, self.bounds = name, text, labels, bounds
        self._series: dict[Labels, Series] = {}

    def series(self, labels: Labels) -> Series:
        """The counts for these labels, which are told from now on. Whoever observes often keeps them."""
        series = self._series.get(labels)
        if series is None and len(self._series) >= MOST_SERIES:
            labels = (OTHER,) * len(labels)
            series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Series(self.bounds)
        return series

    def observe(self, labels: Labels, value: float, span: tuple[str, str] | None = None) -> None:
        """Count a value; see `Series.observe`."""
        self.series(labels).observe(value, span)

    def family(self) -> HistogramFamily:
        """All that was counted, as it is now."""
        samples = [
            HistogramSample(labels, tuple(series.counts), series.sum, dict(series.exemplars or {}))
            for labels, series in self._series.items()
        ]
        return HistogramFamily(self.name, self.text, self.labels, self.bounds, samples)
