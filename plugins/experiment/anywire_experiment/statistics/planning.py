"""How many blocks a comparison takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from anywire_experiment.statistics.paired import FEWEST_BLOCKS
from anywire_experiment.statistics.samples import fraction, positive

QUANTILES = (np.arange(400) + 0.5) / 400
"""Where the distribution of the standard deviation is sampled, to integrate over it."""


def blocks_needed(
    spread: float, margin: float, *, true_ratio: float | None = None, power: float = 0.8, alpha: float = 0.05
) -> int:
    """The least number of blocks, 12 or more, with which `compare` decides with chance ``power`` at level ``alpha``.

    ``spread`` is the standard deviation of the log ratio between blocks (`Comparison.spread` of an earlier run),
    ``margin`` relative (0.10 for 10 %). Without ``true_ratio``: enough to show that arms of ratio 1 are equivalent,
    and that arms as far apart as the margin differ. With it: enough to show the one or the other, whichever takes
    fewer blocks, of arms of that ratio; halfway to the margin takes the most.

    Power of Student's paired test (noncentral t) and of two one-sided ones (Phillips 1990): exact for normal log
    ratios, and close for `compare`. The spread of a dozen blocks is itself known to about a fifth only, and the
    number of blocks goes with its square.
    """
    positive(margin, "margin")
    fraction(power, "power")
    fraction(alpha, "alpha")
    if not (math.isfinite(spread) and spread >= 0.0):
        raise ValueError(f"spread is a standard deviation, zero or more, not {spread}")
    if spread == 0.0:
        return FEWEST_BLOCKS
    edge = math.log1p(margin) / spread
    if true_ratio is None:
        return _fewest(lambda n: min(_equivalence(n, 0.0, edge, alpha), _difference(n, edge, alpha)), power)
    shift = math.log(positive(true_ratio, "true_ratio")) / spread
    return _fewest(lambda n: max(_equivalence(n, shift, edge, alpha), _difference(n, shift, alpha)), power)


def _fewest(power_of: Callable[[int], float], power: float) -> int:
    low, high = FEWEST_BLOCKS - 1, FEWEST_BLOCKS
    while power_of(high) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power_of(middle) < power else (low, middle)
    return high


def _difference(blocks: int, shift: float, alpha: float) -> float:
    """Chance that a two-sided t-test finds ``shift``, in standard deviations of one block."""
    critical = stats.t.ppf(1.0 - alpha / 2.0, blocks - 1)
    centre = shift * math.sqrt(blocks)
    return float(stats.nct.sf(critical, blocks - 1, centre) + stats.nct.cdf(-critical, blocks - 1, centre))


def _equivalence(blocks: int, shift: float, edge: float, alpha: float) -> float:
    """Chance that two one-sided t-tests find ``shift`` inside of ± ``edge``, in standard deviations of one block."""
    degrees = blocks - 1
    deviation = np.sqrt(stats.chi2.ppf(QUANTILES, degrees) / degrees)
    room = edge * math.sqrt(blocks) - stats.t.ppf(1.0 - alpha, degrees) * deviation
    centre = shift * math.sqrt(blocks)
    inside = stats.norm.cdf(room - centre) - stats.norm.cdf(-room - centre)
    return float(np.maximum(inside, 0.0).mean())
