"""The Hodges-Lehmann shift: an estimate that one spoiled block hardly moves."""

from __future__ import annotations

import numpy as np

from anywire_experiment.statistics.samples import Estimate, Floats


def walsh_limits(values: Floats, level: float) -> tuple[Floats, Floats, Floats, float]:
    """Hodges-Lehmann estimate, its limits, and their exact confidence, over the last axis of ``values`` (..., n).

    The median of the Walsh averages (of all pairs, each value with itself included), between the order statistics
    that Wilcoxon's signed-rank test does not reject (Hodges & Lehmann 1963; Hollander & Wolfe 1999, 3.3). Assumes
    independent values, symmetrical about the shift, of any shape and tails. The test's levels are discrete: the
    confidence is the least possible that is not below ``level``. Fewer than 6 values cannot reach 0.95: the limits
    are then the extremes, and the confidence says so.
    """
    count = values.shape[-1]
    first, second = np.triu_indices(count)
    averages = np.sort((values[..., first] + values[..., second]) / 2.0, axis=-1)
    below = np.cumsum(_signed_rank_distribution(count))
    cut = max(int(np.searchsorted(below, (1.0 - level) / 2.0, side="right")) - 1, 0)
    return (
        np.median(averages, axis=-1),
        averages[..., cut],
        averages[..., averages.shape[-1] - 1 - cut],
        1.0 - 2.0 * float(below[cut]),
    )


def hodges_lehmann(values: Floats, level: float) -> Estimate:
    """`walsh_limits` of one series (n,), in its unit; ``level`` is the confidence reached."""
    value, low, high, reached = walsh_limits(values, level)
    return Estimate(float(value), float(low), float(high), reached)


def _signed_rank_distribution(count: int) -> Floats:
    """P(W = w), w = 0 … n(n+1)/2, of Wilcoxon's signed-rank statistic: each rank counts or not, with even chance."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        chances = 0.5 * (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0)))
    return chances
