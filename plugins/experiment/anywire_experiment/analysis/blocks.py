"""Which blocks count for a metric, and what their values come to together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np

from anywire_experiment.analysis.metrics import Floats, Measured
from anywire_experiment.plan import OF_REQUESTS, Metric, Plan, fewest_samples
from anywire_experiment.statistics import Estimate
from anywire_experiment.statistics.studentised import resampling_counts, studentised_mean

RESAMPLES = 10_000

Usable = dict[int, Floats]
"""A metric's series by block."""


def usable(plan: Plan, metric: Metric, blocks: Mapping[int, Measured]) -> Usable:
    """The series of the blocks that count for a metric."""
    fewest = fewest_samples(plan.statistic) if metric in OF_REQUESTS else 1
    return {block: series for block, each in blocks.items() if (series := each.series(metric)).size >= fewest}


@cache
def _counts(blocks: int, seed: int) -> Floats:
    return resampling_counts(blocks, RESAMPLES, seed)


def over_blocks(plan: Plan, values: list[float], logs: bool = False) -> Estimate:
    """The mean of the blocks' values with its studentised interval; of their logarithms for the geometric mean."""
    given = np.log(values) if logs else np.array(values)
    found = studentised_mean(given, _counts(len(values), plan.seed))
    limits = [float(found.mean), *map(float, found.interval(plan.confidence))]
    value, low, high = map(math.exp, limits) if logs else limits
    return Estimate(value, low, high, plan.confidence)
