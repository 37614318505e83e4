"""Probabilities in the tail of a resampled distribution, beyond what its resamples can count."""

from __future__ import annotations

import numpy as np

from anywire_experiment.statistics.samples import Floats

COUNTED = 10
"""Resamples at or beyond a value from which on their count alone tells how rare the value is."""
FITTED = 0.025
"""Share of the resamples that the tail is fitted to."""


def tail_probability(observed: Floats, resampled: Floats, lightest: float) -> Floats:
    """The chance of a value at or above ``observed`` (...), by the ``resampled`` ones (..., resamples).

    Where 10 resamples or more lie there, it is their share, each p-value being (count + 1) / (resamples + 1). A count
    cannot tell less than 1 / (resamples + 1), which in a family of some hundred comparisons is never significant.
    Where fewer lie there, a generalised Pareto distribution is fitted to the uppermost 2.5 % of the resamples, and the
    chance is read from its tail (Knijnenburg, Wessels, Reinders & Shmulevich 2009, "Fewer permutations, more accurate
    P-values"); it is fitted by probability-weighted moments (Hosking & Wallis 1987). The fitted tail is made heavier by
    one standard error of its shape, and it is never lighter than ``lightest``, the shape of a tail that is known
    to hold for normal values (1 / degrees of freedom for Student's t), so that the chance is never 0. It is never above
    what the count tells.
    """
    resamples = resampled.shape[-1]
    # Ties count as beyond, those that rounding has broken too.
    bound = observed - 1e-9 * np.abs(observed)
    beyond = np.count_nonzero(resampled >= bound[..., np.newaxis], axis=-1)
    counted: Floats = (beyond + 1) / (resamples + 1)
    few = beyond < COUNTED
    if not few.any():
        return counted
    told = np.array(counted, dtype=np.float64)
    told[few] = np.minimum(counted[few], _fitted(bound[few], resampled[few], lightest))
    return told


def _fitted(observed: Floats, resampled: Floats, lightest: float) -> Floats:
    """Of values (m,) by their resamples (m, resamples)."""
    size = max(int(FITTED * resampled.shape[-1]), COUNTED)
    upper = np.sort(np.partition(resampled, -size - 1, axis=-1)[..., -size - 1 :], axis=-1)
    threshold = upper[..., 0]
    excess = upper[..., 1:] - threshold[..., np.newaxis]
    mean = excess.mean(axis=-1)
    # The mean of each excess times the share of excesses above it.
    weighted = (excess * ((size - np.arange(1, size + 1) + 0.35) / size)).mean(axis=-1)
    spread = mean - 2.0 * weighted
    sound = (spread > 0.0) & (mean > 0.0)
    spread = np.where(sound, spread, 1.0)
    shape = np.where(sound, 2.0 - mean / spread, lightest)
    shape = np.maximum(shape + (1.0 + np.abs(shape)) / np.sqrt(size), lightest)
    # With the shape settled, the scale that keeps the mean of what was fitted; above 1 there is no mean.
    scale = np.where(shape < 1.0, mean * (1.0 - np.minimum(shape, 0.999)), np.where(sound, mean, 0.0))
    above = np.maximum(observed - threshold, 0.0)
    scale = np.where(scale > 0.0, scale, np.maximum(above, 1e-300))
    chance: Floats = size / (resampled.shape[-1] + 1) * (1.0 + shape * above / scale) ** (-1.0 / shape)
    return chance
