"""Probabilities and quantiles of the distributions that methods here rest on, and ranks.

By `scipy.special` alone: ``scipy.stats`` has them too, and takes long to import, which every command would wait for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from anywire_experiment.statistics.samples import Flags, Floats


def normal_above(value: ArrayLike) -> Floats:
    """The chance that a standard normal value is larger than ``value``."""
    return np.asarray(special.ndtr(-_floats(value)))


def normal_quantile(chance: ArrayLike) -> Floats:
    """The value that a standard normal one is not above with ``chance``."""
    return np.asarray(special.ndtri(_floats(chance)))


def student_above(value: ArrayLike, degrees: float) -> Floats:
    """The chance that Student's t with so many degrees of freedom is larger than ``value``."""
    return np.asarray(special.stdtr(_floats(degrees), -_floats(value)))


def student_quantile(chance: ArrayLike, degrees: float) -> Floats:
    """The value that Student's t with so many degrees of freedom is not above with ``chance``."""
    return np.asarray(special.stdtrit(_floats(degrees), _floats(chance)))


def f_above(value: ArrayLike, above: int, below: int) -> Floats:
    """The chance that Fisher's F is larger than ``value``, with so many degrees of freedom ``above`` and ``below`` the
    line of the fraction."""
    return np.asarray(special.fdtrc(_floats(above), _floats(below), _floats(value)))


def chi_squared_quantile(chance: ArrayLike, degrees: float) -> Floats:
    """The value that chi-squared with so many degrees of freedom is not above with ``chance``."""
    return np.asarray(2.0 * special.gammaincinv(_floats(degrees) / 2.0, _floats(chance)))


def beta_up_to(value: ArrayLike, a: ArrayLike, b: ArrayLike) -> Floats:
    """The chance that a beta variable with those shapes is not above ``value``."""
    return np.asarray(special.betainc(_floats(a), _floats(b), _floats(value)))


def beta_quantile(chance: ArrayLike, a: ArrayLike, b: ArrayLike) -> Floats:
    """The value that a beta variable with those shapes is not above with ``chance``."""
    return np.asarray(special.betaincinv(_floats(a), _floats(b), _floats(chance)))


def binomial_up_to(successes: ArrayLike, attempts: int, chance: float) -> Floats:
    """The chance of so many successes or fewer in ``attempts``, each of which succeeds with ``chance`` (0 to 1)."""
    count, inside = _inside(successes, attempts)
    found = special.betaincc(np.where(inside, count + 1.0, 1.0), np.where(inside, attempts - count, 1.0), chance)
    return np.where(inside, found, np.where(count < 0.0, 0.0, 1.0))


def binomial_above(successes: ArrayLike, attempts: int, chance: float) -> Floats:
    """The chance of more than so many successes, as `binomial_up_to`."""
    count, inside = _inside(successes, attempts)
    found = special.betainc(np.where(inside, count + 1.0, 1.0), np.where(inside, attempts - count, 1.0), chance)
    return np.where(inside, found, np.where(count < 0.0, 1.0, 0.0))


def binomial_quantile(up_to: float, attempts: int, chance: float) -> int:
    """The fewest successes that are not exceeded with a chance of ``up_to``, between 0 and 1."""
    low, high = -1, attempts
    while high - low > 1:
        middle = (low + high) // 2
        reached = float(special.betaincc(middle + 1.0, float(attempts - middle), chance)) >= up_to
        low, high = (low, middle) if reached else (middle, high)
    return high


def ranks(values: Floats) -> Floats:
    """The rank of each value among those of the last axis, from 1; equal ones have the mean of their ranks."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    at = np.arange(values.shape[-1])
    is_next = ordered[..., 1:] != ordered[..., :-1]
    edge = np.ones((*values.shape[:-1], 1), dtype=np.bool_)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, is_next], axis=-1), at, 0), axis=-1)
    ends = np.where(np.concatenate([is_next, edge], axis=-1), at, at.size)
    last = np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1]
    made = np.empty(values.shape)
    np.put_along_axis(made, order, (first + last) / 2.0 + 1.0, axis=-1)
    return made


def _inside(successes: ArrayLike, attempts: int) -> tuple[Floats, Flags]:
    """With those marked that leave something on either side."""
    count = _floats(successes)
    return count, np.asarray((count >= 0.0) & (count < attempts))


def _floats(given: ArrayLike) -> Floats:
    return np.asarray(given, dtype=np.float64)
