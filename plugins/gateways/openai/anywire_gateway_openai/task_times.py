"""Times of tasks as the orchestrator sees them, in histograms.

They have the names OpenTelemetry's semantic conventions give them, as Prometheus spells those.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from anywire.events import TaskEnded

if TYPE_CHECKING:
    from prometheus_client import Metric

OPERATION = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
LABELS = ("gen_ai_operation_name", "gen_ai_request_model", "transport", "error_type", "gen_ai_provider_name")
PROVIDER = "anywire"

# OpenTelemetry's bounds, in seconds, with finer ones before them: a fast path would end in their first bucket.
DURATION = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48,
            40.96, 81.92)  # fmt: skip
FIRST_TOKEN = (0.0005, 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

Labels = tuple[str, str, str, str]


class Histogram:
    """Counts of seconds by labels, in buckets up to and including each of ``bounds``."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text, self.bounds = name, text, bounds
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, seconds: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self.bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self.bounds, seconds)] += 1
        self._sums[labels] += seconds

    def collect(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(self.name, self.text, labels=LABELS)
        names = [*map(str, self.bounds), "+Inf"]
        for labels, counts in self._counts.items():
            buckets = list(zip(names, accumulate(counts), strict=True))
            family.add_metric((*labels, PROVIDER), buckets, self._sums[labels])
        return family


class TaskTimes:
    """How long tasks took, and the tokens of their streams."""

    def __init__(self) -> None:
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds", "From a task's submission to its end.", DURATION
        )
        self._first = Histogram(
            "gen_ai_server_time_to_first_token_seconds", "From submission to the first token of a stream.", FIRST_TOKEN
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time between the tokens of a stream after its first.",
            PER_TOKEN,
        )

    def add(self, task: TaskEnded, model: str) -> None:
        """Count a task that has ended, under the name ``model``."""
        labels = (OPERATION.get(task.kind, task.kind), model, task.transport, task.error)
        duration = (task.at_ns - task.stages.received) * 1e-9
        self._duration.observe(labels, duration)
        if task.error or not task.stream or not task.first_ms:
            return
        first = task.first_ms * 1e-3
        self._first.observe(labels, first)
        if task.deltas > 1:
            self._per_token.observe(labels, (duration - first) / (task.deltas - 1))

    def collect(self) -> Iterator[Metric]:
        yield from (self._duration.collect(), self._first.collect(), self._per_token.collect())
