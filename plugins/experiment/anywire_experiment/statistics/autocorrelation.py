"""How many independent samples a series is worth that depends on itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from anywire_experiment.statistics.samples import ROUNDING, finite_series


def effective_sample_size(samples: ArrayLike) -> float:
    """How many independent samples would give as sure a mean as these, between 1 and their number.

    ``samples`` (n,) in the order they were taken, equally spaced, from a stationary process. n / τ, with the
    integrated autocorrelation time τ summed over Geyer's initial monotone sequence: the sums of
    neighbouring autocorrelations, as long as they are positive, and none larger than the one before (Geyer 1992).
    Samples that swing about their mean could count for more than n; they are not credited, so that no interval is
    narrower than that of independent samples. A constant series counts as n.
    """
    series = finite_series(samples)
    count = series.size
    centred = series - series.mean()
    variance = float(centred @ centred)
    if variance <= count * (ROUNDING * float(np.abs(series).max())) ** 2:
        return float(count)
    # As `scipy.signal.correlate` does it, whose import takes a second, to the last bit: records are sealed with it.
    length = fft.next_fast_len(2 * count - 1, real=True)
    product = fft.rfft(centred, length) * fft.rfft(centred[::-1], length)
    correlations = fft.irfft(product, length)[count - 1 : 2 * count - 1] / variance
    pairs = correlations[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0.0)
    initial = np.minimum.accumulate(pairs[: ends[0]] if ends.size else pairs)
    time = max(2.0 * float(initial.sum()) - 1.0, 1.0)
    return max(count / time, 1.0)
