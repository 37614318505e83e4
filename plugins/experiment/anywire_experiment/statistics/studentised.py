"""The interval and the test of a mean of few, possibly skewed values: the studentised bootstrap.

Written for many experiments at once (leading axes), because its calibration simulates thousands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anywire_experiment.statistics.probability import student_above, student_quantile
from anywire_experiment.statistics.samples import Floats
from anywire_experiment.statistics.tail import tail_probability


@dataclass(frozen=True, eq=False)
class StudentisedMean:
    """The mean of n independent values and what the bootstrap says of its error.

    ``mean`` and ``error`` (its standard error) have shape (...), ``resampled`` the studentised means of the resamples,
    shape (..., resamples). ``negligible`` is the spread taken for none: rounding errors, not measurements.
    """

    mean: Floats
    error: Floats
    resampled: Floats
    degrees: int
    negligible: float

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """The limits between which the true mean lies with confidence ``level``."""
        tail = (1.0 - level) / 2.0
        lower, upper = np.quantile(self.resampled, [tail, 1.0 - tail], axis=-1)
        least = float(student_quantile(1.0 - tail, self.degrees))
        return self.mean - np.maximum(upper, least) * self.error, self.mean - np.minimum(lower, -least) * self.error

    def p_at_most(self, bound: float) -> Floats:
        """p-value of "the true mean is at most ``bound``"; small when the values lie above."""
        return self._one_sided(self.mean - bound, self.resampled)

    def p_at_least(self, bound: float) -> Floats:
        """p-value of "the true mean is at least ``bound``"; small when the values lie below."""
        return self._one_sided(bound - self.mean, -self.resampled)

    def p_zero(self) -> Floats:
        """Two-sided p-value of "the true mean is zero"."""
        return np.minimum(2.0 * np.minimum(self.p_at_most(0.0), self.p_at_least(0.0)), 1.0)

    def _one_sided(self, excess: Floats, resampled: Floats) -> Floats:
        flat = self.error == 0.0
        observed = excess / np.where(flat, 1.0, self.error)
        bootstrap = tail_probability(observed, resampled, 1.0 / self.degrees)
        student = student_above(observed, self.degrees)
        # Values that never vary have no error to compare with; the sign test is exact without one.
        signs = 0.5 ** (self.degrees + 1)
        return np.where(flat, np.where(excess > self.negligible, signs, 1.0), np.maximum(bootstrap, student))


@lru_cache(maxsize=4)
def resampling_counts(blocks: int, resamples: int, seed: int) -> Floats:
    """How often each of ``blocks`` values is drawn in each resample: shape (blocks, resamples / 2), read-only. The
    comparisons of an experiment share it."""
    drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1.0 / blocks), size=resamples // 2)
    counts = drawn.T.astype(np.float64)
    counts.setflags(write=False)
    return counts


def studentised_mean(values: Floats, counts: Floats, *, negligible: float = 0.0) -> StudentisedMean:
    """The mean over the last axis of ``values`` (..., n), with the resamples told by ``counts`` (`resampling_counts`).

    Assumes n independent values of one distribution with a finite variance: blocks, never the samples in a block.
    Bootstrap-t (Efron 1982; Hall 1988; Efron & Tibshirani 1993, ch. 12): the distribution of (mean* - mean) / error*
    stands in for Student's. It follows skew, where Student's t does not; with heavy symmetrical tails and a
    dozen values it is too narrow, where Student's t is not. So either limit is the farther of the two, and either
    p-value the larger. Each resample is used with its mirror image in the order of the values (antithetic
    resampling, Hall 1989): results depend neither on the order of the values nor, but for the sign, on their sign.
    p-values smaller than resamples can count are read from the fitted tail of their distribution
    (`tail_probability`), so that they have no least value and the time does not grow with the number of comparisons.
    """
    blocks = values.shape[-1]
    mean = values.mean(axis=-1)
    centred = np.sort(values, axis=-1) - mean[..., np.newaxis]
    variance = np.square(centred).sum(axis=-1) / (blocks - 1)
    flat = variance <= negligible**2
    variance = np.where(flat, 0.0, variance)
    both = np.stack([centred, centred[..., ::-1]], axis=-2)
    shift = both @ counts / blocks
    spread = np.square(both) @ counts / blocks - shift * shift
    # A resample of one value over and over has no spread of its own; there Student's limit is the one that holds.
    seen = spread > 1e-12 * variance[..., np.newaxis, np.newaxis]
    resampled = np.where(seen, shift / np.sqrt(np.where(seen, spread, 1.0) / (blocks - 1)), 0.0)
    return StudentisedMean(
        mean,
        np.sqrt(variance / blocks),
        resampled.reshape(*mean.shape, -1),
        blocks - 1,
        negligible,
    )
