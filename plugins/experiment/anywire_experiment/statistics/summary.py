"""What one run of one arm measured, by itself."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from anywire_experiment.statistics.autocorrelation import effective_sample_size
from anywire_experiment.statistics.probability import binomial_quantile, normal_quantile, student_quantile
from anywire_experiment.statistics.samples import Estimate, Floats, finite_series, fraction


class Percentile(msgspec.Struct, frozen=True):
    """A percentile and its interval, in the samples' unit. A limit is None when so few (effective) samples do not
    bound the percentile on that side at this ``level``: 100 samples say nothing above their 99th percentile."""

    percent: float
    value: float
    low: float | None
    high: float | None
    level: float


class Summary(msgspec.Struct, frozen=True):
    """One series of samples; every figure in the samples' unit.

    ``failures`` gave no sample and are in no figure but ``failed``, the share of failures among all attempts with
    its Wilson interval (Wilson 1927). ``effective`` is the effective sample size, ``deviation`` the standard
    deviation of one sample. The intervals are about this one run: what another run would give is a matter of
    `compare`, over blocks.
    """

    samples: int
    failures: int
    failed: Estimate
    effective: float
    mean: Estimate
    deviation: float
    minimum: float
    maximum: float
    p50: Percentile
    p90: Percentile
    p95: Percentile
    p99: Percentile

    @property
    def median(self) -> Percentile:
        return self.p50


def summarise(samples: ArrayLike, *, failures: int = 0, level: float = 0.95) -> Summary:
    """Mean, percentiles and their intervals of one (block, arm).

    ``samples`` (n,) in the order they were taken, n at least 2, stationary (cut the warm-up off: `steady_from`);
    they may depend on their predecessors. ``failures`` is how many attempts gave none. ValueError for NaN,
    infinities, and too few samples.

    The mean's interval is Student's with the effective sample size in place of n. A percentile's is that of order
    statistics, which assumes no shape (Hahn & Meeker 1991), with the effective size of the series "is this sample
    below the percentile" in place of n (Woodruff 1952; Korn & Graubard 1998).
    """
    series = finite_series(samples, at_least=2)
    fraction(level, "level")
    if failures < 0:
        raise ValueError(f"failures is a count, not {failures}")
    attempts = series.size + failures
    effective = effective_sample_size(series)
    mean, deviation = float(series.mean()), float(series.std(ddof=1))
    # One degree of freedom at least: a series with one effective sample has no interval, only a very wide one.
    degrees = max(effective - 1.0, 1.0)
    reach = float(student_quantile((1.0 + level) / 2.0, degrees)) * deviation / math.sqrt(effective)
    ordered = np.sort(series)
    p50, p90, p95, p99 = (_percentile(series, ordered, percent, level) for percent in (50.0, 90.0, 95.0, 99.0))
    return Summary(
        samples=series.size,
        failures=failures,
        failed=_wilson(failures, attempts, level),
        effective=effective,
        mean=Estimate(mean, mean - reach, mean + reach, level),
        deviation=deviation,
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
    )


def _wilson(failures: int, attempts: int, level: float) -> Estimate:
    """The limits are where a normal score is as unlikely as the level has it, given the share there; they are 0 and 1
    where nothing, or everything, failed."""
    share, z = failures / attempts, float(normal_quantile((1.0 + level) / 2.0))
    middle = (share + z * z / (2 * attempts)) / (1.0 + z * z / attempts)
    reach = z * math.sqrt(share * (1.0 - share) / attempts + (z / (2 * attempts)) ** 2) / (1.0 + z * z / attempts)
    low, high = middle - reach if failures else 0.0, middle + reach if failures < attempts else 1.0
    return Estimate(share, low, high, level)


def _percentile(series: Floats, ordered: Floats, percent: float, level: float) -> Percentile:
    value = float(np.percentile(ordered, percent))
    effective = math.floor(effective_sample_size((series <= value).astype(np.float64)))
    tail = (1.0 - level) / 2.0
    low = binomial_quantile(tail, effective, percent / 100.0)
    high = binomial_quantile(1.0 - tail, effective, percent / 100.0) + 1
    # Ranks among the effective samples become ranks among all, rounded outwards.
    first, last = low * series.size // effective, -(-high * series.size // effective)
    return Percentile(
        percent,
        value,
        float(ordered[first - 1]) if low >= 1 else None,
        float(ordered[last - 1]) if high <= effective else None,
        level,
    )
