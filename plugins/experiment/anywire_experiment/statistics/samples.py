"""What every figure rests on: numbers that are there, finite, and as many as the method needs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Wholes = NDArray[np.intp]
Flags = NDArray[np.bool_]

ROUNDING = 1e-12
"""Relative differences below it are the arithmetic's, not the measurement's."""

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")


class Estimate(msgspec.Struct, frozen=True):
    """A point estimate and the interval around it, in the unit of what is estimated. ``level`` is the interval's
    confidence, 0.95 for 95 %."""

    value: float
    low: float
    high: float
    level: float


def finite_series(samples: ArrayLike, *, at_least: int = 1, name: str = "samples") -> Floats:
    """``samples`` as a one-dimensional array of floats. ValueError when it has another shape, fewer than
    ``at_least`` numbers, or one that is NaN or infinite."""
    series = np.asarray(samples, dtype=np.float64)
    if series.ndim != 1:
        raise ValueError(f"{name}: expected one series of numbers, got an array of shape {series.shape}")
    if series.size < at_least:
        raise ValueError(f"{name}: {series.size} given, at least {at_least} needed")
    if not np.isfinite(series).all():
        broken = int(np.flatnonzero(~np.isfinite(series))[0])
        raise ValueError(f"{name}: number {broken} is {series[broken]}; count failures apart and leave them out")
    return series


def fraction(value: float, name: str) -> float:
    """``value`` if it lies between 0 and 1, both excluded, else ValueError."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} is a fraction between 0 and 1 (0.05 for 5 %), not {value}")
    return value


def positive(value: float, name: str) -> float:
    """``value`` if it is finite and above zero, else ValueError."""
    if not (np.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be a finite number above zero, not {value}")
    return value


def statistic_of(name: str) -> Callable[[Floats], float]:
    """The statistic of that name: ``mean``, ``median``, or a percentile such as ``p95`` or ``p99.9`` (linear
    interpolation between order statistics, Hyndman & Fan 1996, type 7)."""
    if name == "mean":
        return lambda series: float(np.mean(series))
    if name == "median":
        return lambda series: float(np.median(series))
    if (match := _PERCENTILE.fullmatch(name)) and (percent := float(match[1])) > 0.0:
        return lambda series: float(np.percentile(series, percent))
    raise ValueError(f"unknown statistic {name!r}: use mean, median, or a percentile such as p95")


def block_values(blocks: Sequence[ArrayLike], statistic: str, name: str) -> Floats:
    """The statistic of each block: shape (blocks,). A block is a series of samples, or one number measured as such."""
    of = statistic_of(statistic)
    return np.array(
        [of(finite_series(np.atleast_1d(block), name=f"{name}, block {at}")) for at, block in enumerate(blocks)]
    )


def exponential(log: float) -> float:
    """e to the power of ``log``, within what a number can hold."""
    return math.exp(min(max(log, -700.0), 700.0))
