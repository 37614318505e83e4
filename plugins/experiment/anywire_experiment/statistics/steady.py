"""Whether a series of latencies is steady: no step in it from one level to another, at its start or anywhere."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from anywire_experiment.statistics.probability import normal_quantile, ranks
from anywire_experiment.statistics.samples import Floats, finite_series

BATCH = 5
"""Samples per batch, each told by its median: one straggler is no change."""
FEWEST_SAMPLES = 100
CRITICAL = 3.1
"""Standard errors from which on a step is one: at most 5 % of steady series have such a step by chance."""
EDGE = 0.05
"""Share of the series at either end within which no step is looked for."""
DOUBT = 0.5
"""Standard errors by which the dependence of neighbours is taken for larger than it was seen."""
MOST_DEPENDENT = 0.9
"""Lag-1 correlation that is not exceeded: a series that depends on itself more cannot be told from a drifting one."""


class Step(msgspec.Struct, frozen=True):
    """The clearest step of a series. ``at``: index of the first sample after it. ``errors``: its height in standard
    errors. ``ratio``: median after it by median before it; 0 where a median is 0. ``shown``: whether it is more than
    chance (`CRITICAL`)."""

    at: int
    errors: float
    ratio: float
    shown: bool


class Strongest(NamedTuple):
    """Of each series the batch before which its clearest step is, and the height of that in standard errors."""

    at: NDArray[np.int64]
    errors: Floats


def step_in(latencies: ArrayLike) -> Step:
    """The clearest step of ``latencies`` (n,), in the order they were taken, n at least 100, any unit.

    For each place the mean before and the mean after are compared, in standard errors; the largest is what counts
    (Hawkins 1977; the weighted CUSUM of Csörgő & Horváth 1997). What is averaged are normal scores of batch medians, so
    that the shape of the distribution makes no difference. The standard error allows for neighbours that depend on
    each other, as in an AR(1) series whose dependence is measured with the step taken out: a step is no dependence, and
    dependence no step. It has power against a start that is slower, at whatever share of the series, against a later
    change, and against drift; how much: `anywire_experiment.statistics.steady_calibration`.
    """
    series = finite_series(latencies, at_least=FEWEST_SAMPLES, name="latencies")
    found = strongest_step(normal_scores(batch_medians(series)))
    at, errors = int(found.at) * BATCH, float(found.errors)
    before, after = float(np.median(series[:at])), float(np.median(series[at:]))
    return Step(at, errors, after / before if before > 0.0 else 0.0, errors > CRITICAL)


def steady_from(latencies: ArrayLike) -> int | None:
    """The index of the first sample of the steady state, or None when the series does not become steady.

    ``latencies`` as for `step_in`. What comes before a step is cut off, then the rest is looked at once more; the
    series is not steady when a step lies beyond its half.
    """
    batches = batch_medians(finite_series(latencies, at_least=FEWEST_SAMPLES, name="latencies"))
    first = 0
    while True:
        found = strongest_step(normal_scores(batches[first:]))
        if found.errors <= CRITICAL:
            return first * BATCH
        first += int(found.at)
        if first > batches.size // 2:
            return None


def batch_medians(series: Floats) -> Floats:
    """Over the last axis; what is left over at the end is in none."""
    whole = series.shape[-1] // BATCH
    made: Floats = np.median(series[..., : whole * BATCH].reshape(*series.shape[:-1], whole, BATCH), axis=-1)
    return made


def normal_scores(values: Floats) -> Floats:
    """Values in the place of which stand those of a normal distribution with the same ranks, over the last axis."""
    return normal_quantile((ranks(values) - 0.5) / values.shape[-1])


def strongest_step(values: Floats) -> Strongest:
    """Of each series over the last axis of ``values`` (..., n), n at least 10."""
    count = values.shape[-1]
    before = np.arange(1, count)
    centred = values - values.mean(axis=-1, keepdims=True)
    sums = np.cumsum(centred, axis=-1)[..., :-1]
    heights = np.abs(sums) / np.sqrt(before * (count - before) / count)
    edge = max(2, math.ceil(EDGE * count))
    inner = heights[..., edge - 1 : count - edge]
    at = inner.argmax(axis=-1) + edge
    error = _error(centred, sums, at)
    height = inner.max(axis=-1)
    return Strongest(at, np.where(error > 0.0, height / np.where(error > 0.0, error, 1.0), 0.0))


def _error(centred: Floats, sums: Floats, at: NDArray[np.int64]) -> Floats:
    """The long-run standard deviation of each series once its step is taken out."""
    count = centred.shape[-1]
    sum_before = np.take_along_axis(sums, np.asarray(at)[..., np.newaxis] - 1, axis=-1)
    size = np.asarray(at)[..., np.newaxis]
    level = np.where(np.arange(count) < size, sum_before / size, -sum_before / (count - size))
    rest = centred - level
    squares = np.square(rest).sum(axis=-1)
    seen = (rest[..., 1:] * rest[..., :-1]).sum(axis=-1) / np.where(squares > 0.0, squares, 1.0)
    # Two means were taken out, which makes neighbours look less dependent than they are (Kendall 1954).
    dependence = seen + (2.0 + 4.0 * np.maximum(seen, 0.0)) / count + DOUBT / math.sqrt(count)
    dependence = np.clip(dependence, 0.0, MOST_DEPENDENT)
    error: Floats = np.sqrt(squares / (count - 2) * (1.0 - np.square(dependence))) / (1.0 - dependence)
    return error
