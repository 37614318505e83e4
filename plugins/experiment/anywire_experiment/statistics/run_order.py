"""What the order of the blocks tells: whether they depend on each other, and whether something drifts."""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec
import numpy as np

from anywire_experiment.statistics.probability import normal_above, normal_quantile, ranks
from anywire_experiment.statistics.samples import Estimate, Flags, Floats, exponential

DRIFT_SHOWN = 0.003
"""p-value of Kendall's test at or below which a drift is taken for one. Three in a thousand comparisons of blocks that
do not drift have it too; with a smaller one, intervals of blocks that do would hold more than they promise."""
DRIFT_DOUBT = 1.5
"""By how much p-values are larger where a drift was taken out: it was estimated from the same values, and blocks that
depend on each other may only seem to drift."""
DEPENDENCE_SHOWN = 0.01
MOST_DEPENDENCE = 0.5
"""Lag-1 correlation up to which the intervals are calibrated."""
SURE = 0.999
"""Confidence with which it must lie above, for blocks to be too dependent to be judged."""
MEAN_CAUTION = 1.4
"""With 1, intervals of means of 16 blocks would hold the truth in 91 % when the lag-1 correlation is 0.5: so few blocks
show only a part of it."""
MOST_ALIKE = 0.8
_DRAWS = 20_000
_EXACT = 100
"""Blocks up to which the distribution of Kendall's statistic is counted out; it is normal beyond."""


class RunOrder(msgspec.Struct, frozen=True):
    """How the log ratio of a comparison went from block to block.

    ``lag1`` is the correlation of a block with the one before, corrected for how few they are and taken after the drift
    if there is one. ``p_dependent`` is the p-value of "blocks are independent", against their being alike to their
    predecessors; exact for any distribution, by permutation of ranks. ``too_dependent``: the correlation
    is shown, with 99.9 %, to be above 0.5, for which no interval here is calibrated. ``worth`` is how many independent
    blocks know as much (n (1 - lag1) / (1 + lag1), never more than n).

    ``per_block`` is the change of the ratio from block to block, as a ratio (1.01: 1 % more in each), the median of all
    slopes, with its interval (Theil 1950; Sen 1968); ``p_drift`` is the p-value of "there is no drift" (Kendall
    1938). Where it is at or below 0.003, ``drifts``: then ``first`` and ``last`` are the ratio in the first and the
    last block, as the drift has it, and the ratio that is judged is the one in the middle of the run.
    """

    lag1: Estimate
    p_dependent: float
    too_dependent: bool
    worth: float
    per_block: Estimate
    p_drift: float
    drifts: bool
    first: float
    last: float

    @property
    def depends(self) -> bool:
        """Whether it is shown that blocks are like their predecessors."""
        return self.p_dependent <= DEPENDENCE_SHOWN


def run_order(logs: Floats, level: float = 0.95) -> RunOrder:
    """Of log ratios (n,), in the order in which their blocks ran, n 2 or more."""
    count = logs.size
    rest, slopes, p_drift = without_drift(logs)
    slope = _slope(logs, level)
    drifts = bool(slopes != 0.0)
    middle = float(np.median(rest))
    reach = (count - 1) / 2.0 * float(slopes)
    seen, lag1 = (float(each) for each in _lag1(rest))
    low, high = (float(each) for each in _limits(np.array(lag1), count, level))
    known = _of_independent(count)
    beyond = known.size - int(np.searchsorted(known, seen - 1e-12))
    worth = count * (1.0 - lag1) / (1.0 + lag1) if lag1 > 0.0 else float(count)
    return RunOrder(
        lag1=Estimate(lag1, low, high, level),
        p_dependent=1.0 if np.ptp(rest) == 0.0 else (1.0 + beyond) / (1.0 + known.size),
        too_dependent=bool(too_dependent(rest)),
        worth=max(worth, 1.0),
        per_block=Estimate(exponential(slope.value), exponential(slope.low), exponential(slope.high), slope.level),
        p_drift=float(p_drift),
        drifts=drifts,
        first=exponential(middle - reach),
        last=exponential(middle + reach),
    )


def without_drift(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Values (..., n) in the order of their blocks, without a drift that is shown; its slope, 0 where none is; and the
    p-value of "there is none".

    The drift is turned about the middle of the run, so that what remains lies about the value there.
    """
    count = values.shape[-1]
    first, second = np.triu_indices(count, 1)
    rises = values[..., second] - values[..., first]
    p_values = _kendall(np.abs(np.sign(rises).sum(axis=-1)), count)
    shown = p_values <= DRIFT_SHOWN
    slopes = np.zeros(shown.shape)
    if shown.any():
        slopes[shown] = np.median(rises[shown] / (second - first), axis=-1)
    at = np.arange(count) - (count - 1) / 2.0
    return values - slopes[..., np.newaxis] * at, slopes, p_values


def _kendall(score: Floats, count: int) -> Floats:
    """Two-sided p-value of so many more rises than falls, or falls than rises, among all pairs."""
    score = np.asarray(score, dtype=np.float64)
    if count > _EXACT:
        deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)
        return np.asarray(np.minimum(2.0 * normal_above(np.maximum(score - 1.0, 0.0) / deviation), 1.0))
    chances = _inversions(count)
    pairs = chances.size - 1
    # The score is the pairs less twice the inversions; tied pairs count for neither.
    fewest = np.floor((pairs - score) / 2.0 + 1e-9).astype(np.intp)
    return np.asarray(np.minimum(2.0 * np.cumsum(chances)[fewest], 1.0))


@lru_cache(maxsize=16)
def _inversions(count: int) -> Floats:
    """Chance of each number of inversions in a random order of so many."""
    chances = np.ones(1)
    for size in range(2, count + 1):
        chances = np.convolve(chances, np.full(size, 1.0 / size))
    return chances


def _slope(values: Floats, level: float) -> Estimate:
    """Theil and Sen's, between the slopes that Kendall's test does not reject."""
    count = values.size
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((values[second] - values[first]) / (second - first))
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)
    reach = float(normal_quantile((1.0 + level) / 2.0)) * deviation
    low = max(math.floor((slopes.size - reach) / 2.0), 0)
    high = min(slopes.size - 1 - low, slopes.size - 1)
    return Estimate(float(np.median(slopes)), float(slopes[low]), float(slopes[max(high, low)]), level)


def too_dependent(values: Floats) -> Flags:
    """Whether values (..., n), in the order of their blocks and without a drift, are shown to depend on each other more
    than intervals are calibrated for."""
    return np.asarray(_limits(_lag1(values)[1], values.shape[-1], SURE)[0] > MOST_DEPENDENCE)


def widened_by(values: Floats) -> Floats:
    """By how much the error of a mean of values (..., n) is larger than that of independent ones, as their order has
    it: the root of what blocks are worth less, to the power of `MEAN_CAUTION`; 1 where they are not like their
    predecessors."""
    alike = np.clip(_lag1(values)[1], 0.0, MOST_ALIKE)
    return np.asarray(((1.0 + alike) / (1.0 - alike)) ** (MEAN_CAUTION / 2.0))


def _lag1(values: Floats) -> tuple[Floats, Floats]:
    """The lag-1 correlation of the ranks of values (..., n), as it is, and corrected for how few they are."""
    count = values.shape[-1]
    scores = ranks(values) - (count + 1) / 2.0
    total = np.square(scores).sum(axis=-1)
    flat = total == 0.0
    seen = np.where(flat, 0.0, (scores[..., 1:] * scores[..., :-1]).sum(axis=-1) / np.where(flat, 1.0, total))
    # The mean of the estimator is r - (1 + 4 r) / n (Marriott & Pope 1954).
    corrected = np.clip((seen + 1.0 / count) / _shrunk(count), -0.99, 0.99)
    return seen, np.where(flat, 0.0, corrected)


def _shrunk(count: int) -> float:
    return max(1.0 - 4.0 / count, 0.25)


def _limits(lag1: Floats, count: int, level: float) -> tuple[Floats, Floats]:
    """Of the correlation; its arcsine has the same error everywhere."""
    reach = float(normal_quantile((1.0 + level) / 2.0)) / math.sqrt(count) / _shrunk(count)
    angle, quarter = np.arcsin(lag1), math.pi / 2.0
    return np.sin(np.maximum(angle - reach, -quarter)), np.sin(np.minimum(angle + reach, quarter))


@lru_cache(maxsize=16)
def _of_independent(count: int) -> Floats:
    """Lag-1 correlations of ranks in random orders, sorted."""
    draws = max(min(_DRAWS, 4_000_000 // count), 1000)
    ranks = np.tile(np.arange(count, dtype=np.float64) - (count - 1) / 2.0, (draws, 1))
    drawn = np.random.default_rng(count).permuted(ranks, axis=1)
    return np.sort(np.einsum("ij,ij->i", drawn[:, 1:], drawn[:, :-1]) / float(ranks[0] @ ranks[0]))
