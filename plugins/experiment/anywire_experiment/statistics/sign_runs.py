"""The chance of so few values on one side of the median, in so many runs: the sign test that hears dependence.

Of n independent values each lies below the true median with chance one half, whatever their distribution is. So how
many lie below, and in how many runs they do in the order of the blocks, has a distribution that is known exactly.
Which outcomes count as the more extreme is free to choose. Here those with few values below *and* many changes of side
do: where blocks depend on their predecessors, values that lie alike come together, and one straggling group of
neighbours is no more evidence than one block.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from anywire_experiment.statistics.probability import binomial_up_to, normal_quantile
from anywire_experiment.statistics.samples import Floats

CAUTION = 1.5
"""Power of the variance that dependence seems to add. So few blocks show only a part of it: when the lag-1 correlation
is 0.5, with 1 the intervals of 16 to 30 blocks would hold the truth in 91 to 92 %, and with 1.35 those of 18 in 92.8 %
(table in the statistics page)."""
_LAGS = np.arange(1, 400)
_CORRELATIONS = np.linspace(-0.95, 0.97, 400)
_OF_SIGNS = 2.0 / np.pi * np.arcsin(_CORRELATIONS)
_INFLATIONS = np.array([1.0 + 4.0 / np.pi * np.arcsin(phi**_LAGS).sum() for phi in _CORRELATIONS])


@lru_cache(maxsize=64)
def sign_tails(count: int) -> Floats:
    """p-values by how many of ``count`` values lie on the rarer side and how often the series changes sides.

    Shape (count + 1, count), [on that side, changes], read-only. Each is the exact chance, for independent values of
    any continuous distribution, of an outcome as extreme or more. The order of outcomes: the normal score of the
    sign test, divided by the standard deviation of a count of signs that change sides so rarely (that of a Gaussian
    AR(1) series whose signs have the correlation seen, to the power of `CAUTION`). All values on one side is the most
    extreme one, with 1 / 2**count.
    """
    below = np.arange(count + 1, dtype=np.float64)[:, np.newaxis]
    changes = np.arange(count, dtype=np.float64)[np.newaxis, :]
    chances = _chances(below, changes, count)
    score = -normal_quantile(np.maximum(binomial_up_to(below, count, 0.5), 1e-300))
    expected = 2.0 * below * (count - below) / count
    correlation = np.where(expected > 0.0, 1.0 - changes / np.where(expected > 0.0, expected, 1.0), 0.0)
    inflation = np.interp(correlation, _OF_SIGNS, _INFLATIONS) ** CAUTION
    extreme = np.where((chances > 0.0) & (score > 0.0), score / np.sqrt(inflation), -np.inf).ravel()
    order = np.argsort(-extreme, kind="stable")
    ordered = extreme[order]
    last = np.searchsorted(-ordered, -ordered, side="right") - 1
    tails = np.empty(extreme.size)
    tails[order] = np.cumsum(chances.ravel()[order])[last]
    made = np.where(score > 0.0, np.minimum(tails.reshape(chances.shape), 1.0), 1.0)
    made.setflags(write=False)
    return made


def _chances(below: Floats, changes: Floats, count: int) -> Floats:
    """Of each outcome: how many of the 2**count series have it."""
    above, runs = count - below, changes + 1
    more, fewer = (runs + 1) // 2, runs // 2
    # The side that begins has as many runs as the other, or one more.
    ways = np.logaddexp(
        _compositions(below, more) + _compositions(above, fewer),
        _compositions(below, fewer) + _compositions(above, more),
    )
    alone = (changes == 0) & ((below == 0) | (above == 0))
    ways = np.where((below == 0) | (above == 0), np.where(alone, 0.0, -np.inf), ways)
    return np.asarray(np.exp(ways - count * np.log(2.0)))


def _compositions(values: Floats, runs: Floats) -> Floats:
    """Logarithm of the ways to part so many values into so many runs, none of them empty."""
    possible = (runs >= 1) & (runs <= values)
    n, k = np.where(possible, values - 1, 0), np.where(possible, runs - 1, 0)
    return np.where(possible, gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), -np.inf)
