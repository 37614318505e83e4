"""Two arms compared over blocks: how much one differs from the other, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from anywire_experiment.statistics.median import MedianOverBlocks, estimate, median_over_blocks
from anywire_experiment.statistics.run_order import DRIFT_DOUBT, RunOrder, run_order, without_drift
from anywire_experiment.statistics.samples import ROUNDING, Estimate, Floats, block_values, exponential, positive

FEWEST_BLOCKS = 16
"""With fewer blocks no verdict is given: the intervals are calibrated from here on, for blocks that depend on each
other too."""

FEWEST_FOR_INTERVAL = 6
"""With fewer blocks no interval over blocks is told: the extremes of 5 values miss their median in 6 % of cases."""


class Comparison(msgspec.Struct, frozen=True):
    """A candidate arm against a baseline arm, paired by block.

    ``baseline`` and ``candidate`` are medians over the blocks of ``statistic``, in the samples' unit. ``ratio`` is the
    median over the blocks of candidate / baseline (1.02: in half of the blocks the candidate's figure is 2 % larger or
    more), which need not be the ratio of the two medians, and ``difference`` the median of candidate - baseline in that
    unit. Their intervals are those of the median (`median_over_blocks`). Where the ``order`` of the blocks shows a
    drift, both are those in the middle of the run. ``spread`` is the standard deviation of the log ratio from block to
    block, without a drift: 0.1 is about 10 %.

    ``p_different`` is the two-sided p-value of "the ratio is 1". ``p_equivalent`` is that of "the ratio is
    1 + ``margin`` or more, or 1 / (1 + ``margin``) or less" (two one-sided tests, Schuirmann 1987), and
    ``equivalence`` the interval that goes with it, of level 1 - 2 (1 - ``level``): it lies inside the margin when
    ``p_equivalent`` is at or below 1 - ``level``. The ``adjusted`` ones are corrected for the ``family`` of comparisons
    judged together (`as_family`), and are what a verdict goes by.
    """

    blocks: int
    statistic: str
    level: float
    margin: float
    baseline: float
    candidate: float
    ratio: Estimate
    difference: Estimate
    equivalence: Estimate
    spread: float
    p_different: float
    p_equivalent: float
    adjusted_different: float
    adjusted_equivalent: float
    order: RunOrder
    family: int = 1


def compare(
    baseline: Sequence[ArrayLike],
    candidate: Sequence[ArrayLike],
    *,
    margin: float,
    statistic: str = "median",
    level: float = 0.95,
) -> Comparison:
    """The candidate against the baseline; both give one entry per block, in the order in which the blocks ran.

    An entry is the block's samples, of any number (their statistic is taken: ``median``, ``mean``, ``p95``, …), or
    a single number such as a rate. All in one unit, each block's statistic above zero. ``margin`` is the relative
    difference that does not matter, 0.10 for 10 %, and is chosen before the data are seen.

    Assumes that both arms of a block ran under the same conditions. Nothing is assumed of the distribution, neither of
    the samples in a block nor of what differs between blocks. Blocks may depend on their predecessors, up to a
    lag-1 correlation of 0.5, and the ratio may drift from block to block (`RunOrder` tells both). With fewer than 16
    blocks the figures are there, but `verdict` gives none.

    ValueError for fewer than 2 blocks, different numbers of blocks, empty blocks, NaN, infinities, or a statistic
    at or below zero.
    """
    positive(margin, "margin")
    if not 0.5 < level < 1.0:
        raise ValueError(f"level is a confidence between 0.5 and 1 (0.95 for 95 %), not {level}")
    if len(baseline) != len(candidate):
        raise ValueError(
            f"{len(baseline)} blocks of the baseline and {len(candidate)} of the candidate: compare only blocks in "
            "which both ran"
        )
    if len(baseline) < 2:
        raise ValueError(f"{len(baseline)} blocks: the spread between blocks shows only in 2 or more")
    before = _positive_values(baseline, statistic, "baseline")
    after = _positive_values(candidate, statistic, "candidate")
    differences, logs = after - before, np.log(after) - np.log(before)
    order = run_order(logs, level)
    settled = without_drift(logs)[0]
    doubt = DRIFT_DOUBT if order.drifts else 1.0
    relative = median_over_blocks(settled, negligible=ROUNDING, doubt=doubt)
    absolute = median_over_blocks(
        _without_slope(differences) if order.drifts else differences,
        negligible=ROUNDING * float(max(before.max(), after.max())),
        doubt=doubt,
    )
    p_different = float(relative.p_equal())
    p_equivalent = float(p_of_equivalence(relative, margin))
    if order.drifts and max(order.first, 1.0 / order.first, order.last, 1.0 / order.last) >= 1.0 + margin:
        # It does not stay inside of the margin for as long as the run was.
        p_equivalent = 1.0
    return Comparison(
        blocks=len(before),
        statistic=statistic,
        level=level,
        margin=margin,
        baseline=float(np.median(before)),
        candidate=float(np.median(after)),
        ratio=_exponential(estimate(relative, level)),
        difference=estimate(absolute, level),
        equivalence=_exponential(estimate(relative, 2.0 * level - 1.0)),
        spread=float(np.std(settled, ddof=1)),
        p_different=p_different,
        p_equivalent=p_equivalent,
        adjusted_different=p_different,
        adjusted_equivalent=p_equivalent,
        order=order,
    )


def p_of_equivalence(log_ratio: MedianOverBlocks, margin: float) -> Floats:
    """p-value of "the ratio lies outside of the margin": the larger of two one-sided tests (Schuirmann 1987)."""
    edge = math.log1p(margin)
    return np.maximum(log_ratio.p_at_most(-edge), log_ratio.p_at_least(edge))


def _without_slope(values: Floats) -> Floats:
    """Values less their own drift, which the logarithms of their ratios have shown."""
    first, second = np.triu_indices(values.size, 1)
    slope = np.median((values[second] - values[first]) / (second - first))
    return np.asarray(values - slope * (np.arange(values.size) - (values.size - 1) / 2.0))


def _positive_values(blocks: Sequence[ArrayLike], statistic: str, name: str) -> Floats:
    values = block_values(blocks, statistic, name)
    if not (values > 0.0).all():
        at = int(np.flatnonzero(values <= 0.0)[0])
        raise ValueError(f"{name}, block {at}: its {statistic} is {values[at]}; a ratio needs values above zero")
    return values


def _exponential(logs: Estimate) -> Estimate:
    return Estimate(exponential(logs.value), exponential(logs.low), exponential(logs.high), logs.level)
