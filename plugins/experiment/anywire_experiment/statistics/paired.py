"""Two arms compared over blocks: how much one differs from the other, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from anywire_experiment.statistics.samples import ROUNDING, Estimate, Floats, block_values, positive
from anywire_experiment.statistics.signed_rank import hodges_lehmann
from anywire_experiment.statistics.studentised import StudentisedMean, resampling_counts, studentised_mean

FEWEST_BLOCKS = 12
"""With fewer blocks no verdict is given: the intervals are calibrated from here on."""


FEWEST_FOR_INTERVAL = 6
"""With fewer blocks no interval over blocks is told: resamples of one block over and over are then so frequent that the
limits of a studentised bootstrap can be a thousand times Student's."""

LARGEST_LOG = 700.0
"""Of a limit of a ratio; the exponential of more is no number any more, and says as little."""


class Comparison(msgspec.Struct, frozen=True):
    """A candidate arm against a baseline arm, paired by block.

    ``baseline`` and ``candidate`` are geometric means over the blocks of ``statistic``, in the samples' unit, and
    ``ratio`` is candidate / baseline (1.02: the candidate's figure is 2 % larger). ``difference`` is the mean of
    candidate - baseline in that unit; their intervals are studentised bootstraps over blocks (`studentised_mean`).
    ``ratio_shift`` and ``shift`` are ratio and difference once more, by Hodges and Lehmann, whom a few spoiled blocks
    hardly move (`walsh_limits`); their ``level`` is the exact one. ``spread`` is the standard deviation of the log
    ratio from block to block: 0.1 is about 10 %.

    ``p_different`` is the two-sided p-value of "the ratio is 1". ``p_equivalent`` is that of "the ratio is
    1 + ``margin`` or more, or 1 / (1 + ``margin``) or less" (two one-sided tests, Schuirmann 1987), and
    ``equivalence`` the interval that goes with it, of level 1 - 2 (1 - ``level``): it lies inside the margin when
    ``p_equivalent`` is below 1 - ``level``. The ``adjusted`` ones are corrected for the ``family`` of comparisons
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
    ratio_shift: Estimate
    shift: Estimate
    equivalence: Estimate
    spread: float
    p_different: float
    p_equivalent: float
    adjusted_different: float
    adjusted_equivalent: float
    family: int = 1


def compare(
    baseline: Sequence[ArrayLike],
    candidate: Sequence[ArrayLike],
    *,
    margin: float,
    statistic: str = "median",
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """The candidate against the baseline; both give one entry per block, in the same order.

    An entry is the block's samples, of any number (their statistic is taken: ``median``, ``mean``, ``p95``, …), or
    a single number such as a rate. All in one unit, each block's statistic above zero. ``margin`` is the relative
    difference that does not matter, 0.10 for 10 %, and is chosen before the data are seen. The same data and seed
    give the same result; the order of the blocks makes no difference.

    Assumes that blocks are independent of each other, and that both arms ran in each under the same conditions.
    Nothing is assumed of the samples inside a block: they may depend on each other and have any shape, since only the
    spread between blocks is counted. With fewer than 12 blocks the figures are there, but `verdict` gives none.

    ValueError for fewer than 2 blocks, different numbers of blocks, empty blocks, NaN, infinities, or a statistic
    at or below zero.
    """
    positive(margin, "margin")
    if not 0.5 < level < 1.0:
        raise ValueError(f"level is a confidence between 0.5 and 1 (0.95 for 95 %), not {level}")
    if resamples < 1000:
        raise ValueError(f"resamples: {resamples} are too few for an interval; use at least 1000, better 10000")
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
    counts = resampling_counts(len(before), resamples, seed)
    absolute = studentised_mean(differences, counts, negligible=ROUNDING * float(max(before.max(), after.max())))
    relative = studentised_mean(logs, counts, negligible=ROUNDING)
    p_different = float(relative.p_zero())
    p_equivalent = p_of_equivalence(relative, margin)
    return Comparison(
        blocks=len(before),
        statistic=statistic,
        level=level,
        margin=margin,
        baseline=float(np.exp(np.log(before).mean())),
        candidate=float(np.exp(np.log(after).mean())),
        ratio=_exponential(_estimate(relative, level)),
        difference=_estimate(absolute, level),
        ratio_shift=_exponential(hodges_lehmann(logs, level)),
        shift=hodges_lehmann(differences, level),
        equivalence=_exponential(_estimate(relative, 2.0 * level - 1.0)),
        spread=float(np.std(logs, ddof=1)),
        p_different=p_different,
        p_equivalent=float(p_equivalent),
        adjusted_different=p_different,
        adjusted_equivalent=float(p_equivalent),
    )


def p_of_equivalence(log_ratio: StudentisedMean, margin: float) -> Floats:
    """p-value of "the ratio lies outside of the margin": the larger of two one-sided tests (Schuirmann 1987)."""
    edge = math.log1p(margin)
    return np.maximum(log_ratio.p_at_most(-edge), log_ratio.p_at_least(edge))


def _positive_values(blocks: Sequence[ArrayLike], statistic: str, name: str) -> Floats:
    values = block_values(blocks, statistic, name)
    if not (values > 0.0).all():
        at = int(np.flatnonzero(values <= 0.0)[0])
        raise ValueError(f"{name}, block {at}: its {statistic} is {values[at]}; a ratio needs values above zero")
    return values


def _estimate(of: StudentisedMean, level: float) -> Estimate:
    low, high = of.interval(level)
    return Estimate(float(of.mean), float(low), float(high), level)


def _exponential(logs: Estimate) -> Estimate:
    value, low, high = (math.exp(min(each, LARGEST_LOG)) for each in (logs.value, logs.low, logs.high))
    return Estimate(value, low, high, logs.level)
