"""Which blocks count for a metric, and what their values come to together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anywire_experiment.analysis.arm_figures import Valued
from anywire_experiment.analysis.metrics import SHARES
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.analysis.survivors import Ends, ends_of
from anywire_experiment.plan.metric import OF_REQUESTS, Metric, fewest_samples
from anywire_experiment.plan.plan import Plan
from anywire_experiment.statistics import (
    FEWEST_FOR_INTERVAL,
    Comparison,
    Estimate,
    fewest_for_interval,
    typical_value,
)
from anywire_experiment.statistics.studentised import resampling_counts, studentised_mean

RESAMPLES = 10_000
MAY_BE_ZERO: frozenset[Metric] = SHARES | {"recovery"}
"""Metrics whose blocks may have no ratio. Of shares the mean over blocks is told, since all requests count: half of the
blocks may have none at all."""
PACED: frozenset[Metric] = frozenset({"itl", "tokens_per_s"})
"""Metrics that a stream has by its pace, and a burst has not."""

Usable = dict[int, Floats]
"""A metric's series by block."""


def usable(record: RawData, arm: str, workload: str, metric: Metric) -> Usable:
    """What the requests that were answered give in the blocks that count for a metric; nothing of the pace of streams
    that were bursts."""
    if metric in PACED and record.is_burst(arm, workload):
        return {}
    fewest = fewest_samples(record.plan.statistic) if metric in OF_REQUESTS else 1
    blocks = record.measured(arm, workload)
    return {block: series for block, each in blocks.items() if (series := each.series(metric)).size >= fewest}


def ends(record: RawData, arm: str, workload: str, metric: Metric, statistic: str = "") -> dict[int, Ends]:
    """A statistic of all requests, by block, and what it may have been (`ends_of`); empty: the plan's."""
    blocks = record.measured(arm, workload)
    ceiling = 1e3 * record.plan.workloads[workload].timeout
    return {
        block: ends_of(series, blocks[block].lacking(metric), statistic or record.plan.statistic, ceiling)
        for block, series in usable(record, arm, workload, metric).items()
    }


def values(record: RawData, arm: str, workload: str, metric: Metric, statistic: str = "") -> dict[int, float]:
    """The same without the blocks in which so many failed that it lies among them."""
    found = ends(record, arm, workload, metric, statistic)
    return {block: each.value for block, each in found.items() if each.value is not None}


def median(plan: Plan, values: Sequence[float]) -> Valued:
    """The typical value of everything but shares of requests: the median of the blocks' values, as the ratio of two
    arms is the median of the blocks' ratios, with its interval over blocks where there are enough for one. ``values``
    are in the order in which the blocks ran."""
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
