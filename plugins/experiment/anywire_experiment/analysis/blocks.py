"""Which blocks count for a metric, and what their values come to together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Valued
from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.plan import OF_REQUESTS, Metric, Plan, fewest_samples
from anywire_experiment.statistics import (
    FEWEST_FOR_INTERVAL,
    Comparison,
    Estimate,
    fewest_for_interval,
    typical_value,
)
from anywire_experiment.statistics.studentised import resampling_counts, studentised_mean

RESAMPLES = 10_000
MAY_BE_ZERO: frozenset[Metric] = frozenset({"failures", "recovery", "quality"})
"""Metrics whose blocks may have no ratio."""
SHARES: frozenset[Metric] = frozenset({"failures", "quality"})
"""Metrics of which the mean over blocks is told, since all requests count: half of the blocks may have none at all."""
PACED: frozenset[Metric] = frozenset({"itl", "tokens_per_s"})
"""Metrics that a stream has by its pace, and a burst has not."""

Usable = dict[int, Floats]
"""A metric's series by block."""


def usable(record: RawData, arm: str, workload: str, metric: Metric) -> Usable:
    """The series of the blocks that count for a metric; none for the pace of streams that were bursts."""
    if metric in PACED and record.is_burst(arm, workload):
        return {}
    fewest = fewest_samples(record.plan.statistic) if metric in OF_REQUESTS else 1
    blocks = record.measured(arm, workload)
    return {block: series for block, each in blocks.items() if (series := each.series(metric)).size >= fewest}


def typical(plan: Plan, metric: Metric, values: Sequence[float]) -> Valued:
    """What the blocks' values come to: the one definition of a typical value in a report. It is their median, as the
    ratio of two arms is the median of the blocks' ratios, and the mean for shares of requests. ``values`` are in the
    order in which the blocks ran."""
    if metric in SHARES:
        return Valued(float(np.mean(values)), mean_over_blocks(plan, values))
    return median(plan, values)


def median(plan: Plan, values: Sequence[float]) -> Valued:
    """The median of the blocks' values, with its interval over blocks where there are enough for one."""
    return Valued(float(np.median(values)), typical_value(np.array(values), plan.confidence))


def mean_over_blocks(plan: Plan, values: Sequence[float]) -> Estimate | None:
    """The mean of the blocks' values with its studentised interval; None with too few blocks for one."""
    if len(values) < FEWEST_FOR_INTERVAL:
        return None
    found = studentised_mean(np.array(values), resampling_counts(len(values), RESAMPLES, plan.seed))
    low, high = map(float, found.interval(plan.confidence))
    return Estimate(float(found.mean), low, high, plan.confidence)


def is_told(found: Comparison) -> bool:
    """Whether there are enough blocks for an interval of the confidence that was asked for."""
    return found.blocks >= max(FEWEST_FOR_INTERVAL, fewest_for_interval(found.level))
