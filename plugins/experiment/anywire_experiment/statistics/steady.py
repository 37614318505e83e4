"""Where a series of latencies stops warming up."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from anywire_experiment.statistics.autocorrelation import effective_sample_size
from anywire_experiment.statistics.samples import ROUNDING, Floats, finite_series

BATCH = 5
"""Samples per batch: the 5 of MSER-5."""
FEWEST_LEFT = 10
"""Batches left by any truncation: the variance of fewer is small by chance (Hoad, Robinson & Davies 2010)."""
FEWEST_SAMPLES = 100
FEWEST_EFFECTIVE = 6.0
"""A single step between two levels leaves some five, however long the series."""
DRIFT = 0.05
"""How far apart, relative to their mean, the halves of what is kept may be."""
DRIFT_ERRORS = 3.0
"""And how many standard errors apart, for the difference not to be chance."""


def steady_from(latencies: ArrayLike) -> int | None:
    """The index of the first sample of the steady state, or None when the series does not become steady.

    ``latencies`` (n,) in the order they were taken, n at least 100, any unit. MSER-5 (White 1997; White,
    Cobb & Spratt 2000) cuts where the mean of the rest would be known best, that is, where the squared standard
    error over batches of 5 is least. Each batch is told by its median and not by its mean: one straggler is no
    warm-up. The series is not steady when the least lies beyond its half; when the two halves of what is kept differ
    by more than 5 % and by more than three standard errors (after Geweke 1992, with the effective sample size): it
    drifts; or when its batches are worth fewer than 6 independent ones: it has changed its level, or moves so slowly
    that it was not seen for long enough. Then more samples are needed, or there is no steady state.
    """
    series = finite_series(latencies, at_least=FEWEST_SAMPLES, name="latencies")
    batches = np.median(series[: series.size // BATCH * BATCH].reshape(-1, BATCH), axis=1)
    first = _least_error(batches - batches.mean(), negligible=ROUNDING * float(np.abs(series).max()))
    kept = batches[first:]
    if first > batches.size // 2 or effective_sample_size(kept) < FEWEST_EFFECTIVE or _drifts(kept):
        return None
    return first * BATCH


def _least_error(centred: Floats, negligible: float) -> int:
    left = np.arange(centred.size, 0, -1)
    # Sums from each batch to the last: the errors of every truncation in one pass.
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum(np.square(centred)[::-1])[::-1]
    if squares[0] <= centred.size * negligible**2:
        return 0
    errors = (squares - sums * sums / left) / (left * left)
    return int(np.argmin(errors[: 1 - FEWEST_LEFT]))


def _drifts(batches: Floats) -> bool:
    halves = np.array_split(batches, 2)
    means = [float(half.mean()) for half in halves]
    apart = abs(means[1] - means[0])
    errors = math.hypot(*(float(half.std(ddof=1)) / math.sqrt(effective_sample_size(half)) for half in halves))
    return apart > DRIFT * abs(float(batches.mean())) and apart > DRIFT_ERRORS * errors
