"""The median over blocks, with limits and tests that hold for any distribution and allow for blocks that depend on
each other.

Written for many experiments at once (leading axes), because its calibration simulates thousands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from anywire_experiment.statistics.samples import Estimate, Floats, Wholes
from anywire_experiment.statistics.sign_runs import sign_tails


@dataclass(frozen=True, eq=False)
class MedianOverBlocks:
    """The median of n values, shape (...), and how well it is known.

    ``ordered`` are the values, shape (..., n). ``at_most`` and ``at_least``, shape (..., n + 1), are the p-values of
    "the true median lies at or below" and "at or above" a bound that has so many values below it.
    """

    median: Floats
    ordered: Floats
    at_most: Floats
    at_least: Floats

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """The limits between which the true median lies with confidence ``level``: values, or infinite where so few
        do not bound it."""
        tail = (1.0 - level) / 2.0
        padded = np.concatenate(
            [np.full((*self.median.shape, 1), -np.inf), self.ordered, np.full((*self.median.shape, 1), np.inf)], axis=-1
        )
        count = self.ordered.shape[-1]
        low = (self.at_most <= tail).sum(axis=-1)
        high = count + 1 - (self.at_least <= tail).sum(axis=-1)
        return _taken(padded, low), _taken(padded, high)

    def p_at_most(self, bound: float) -> Floats:
        """p-value of "the true median is at most ``bound``"; small when the values lie above."""
        return _taken(self.at_most, (self.ordered <= bound).sum(axis=-1))

    def p_at_least(self, bound: float) -> Floats:
        """p-value of "the true median is at least ``bound``"; small when the values lie below."""
        return _taken(self.at_least, (self.ordered < bound).sum(axis=-1))

    def p_equal(self, bound: float = 0.0) -> Floats:
        """Two-sided p-value of "the true median is ``bound``"."""
        return np.minimum(2.0 * np.minimum(self.p_at_most(bound), self.p_at_least(bound)), 1.0)


def median_over_blocks(values: Floats, *, negligible: float = 0.0, doubt: Floats | float = 1.0) -> MedianOverBlocks:
    """The median over the last axis of ``values`` (..., n), which are in the order in which the blocks ran.

    Exact for independent values of one median, whatever their distribution: the chance that an interval of 95 % misses
    is 5 % or less, and so is that of a p-value of 5 % or less. Values that depend on their predecessors come in
    groups; then an interval is wider and a p-value larger (`sign_tails`), so that both hold for 16 blocks or more whose
    lag-1 correlation is 0.5 or less. ``negligible`` is the difference taken for none: rounding errors, not
    measurements. ``doubt``, shape (...), multiplies the p-values, of values that are not as they were measured.
    """
    count = values.shape[-1]
    if negligible > 0.0:
        values = _levelled(values, negligible)
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    changes = _changes(order)
    tails = sign_tails(count)
    below = np.arange(count + 1)
    at_most, at_least = tails[below, changes], tails[count - below, changes]
    # Nothing lies between equal values, so no bound has a part of them below it.
    inside = np.zeros(at_most.shape, dtype=bool)
    inside[..., 1:count] = ordered[..., 1:] == ordered[..., :-1]
    at_most, at_least = np.where(inside, 0.0, at_most), np.where(inside, 0.0, at_least)
    factor = np.asarray(doubt)[..., np.newaxis]
    return MedianOverBlocks(
        np.median(values, axis=-1),
        ordered,
        np.minimum(np.maximum.accumulate(at_most, axis=-1) * factor, 1.0),
        np.minimum(np.maximum.accumulate(at_least[..., ::-1], axis=-1)[..., ::-1] * factor, 1.0),
    )


def estimate(of: MedianOverBlocks, level: float) -> Estimate:
    """Of one series. Where so few blocks do not bound the median with confidence ``level``, the limits are the
    extremes, and the level is what these have."""
    low, high = map(float, of.interval(level))
    if math.isinf(low) or math.isinf(high):
        reached = 1.0 - 2.0 * float(of.at_most[0])
        return Estimate(float(of.median), float(of.ordered[0]), float(of.ordered[-1]), max(reached, 0.0))
    return Estimate(float(of.median), low, high, level)


def typical_value(values: Floats, level: float) -> Estimate | None:
    """The median of the blocks' values (n,), in the order in which they ran, with its interval; None where so few do
    not bound it with confidence ``level``."""
    if len(values) < fewest_for_interval(level):
        return None
    return estimate(median_over_blocks(np.asarray(values, dtype=np.float64)), level)


def fewest_for_interval(level: float) -> int:
    """Blocks from which on the median has limits of confidence ``level``: 6 for 95 %, 8 for 99 %."""
    return math.ceil(-math.log2((1.0 - level) / 2.0))


def _levelled(values: Floats, negligible: float) -> Floats:
    """Values that are all alike but for rounding, made equal."""
    middle = np.median(values, axis=-1, keepdims=True)
    alike = np.abs(values - middle).max(axis=-1, keepdims=True) <= negligible
    return np.where(alike, middle, values)


def _changes(order: Wholes) -> Wholes:
    """How often the series changes sides at a bound with k values below it, k = 0 … n: shape (..., n + 1)."""
    count = order.shape[-1]
    ranks = np.empty(order.shape, dtype=np.intp)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(1, count + 1), order.shape), axis=-1)
    first = np.minimum(ranks[..., 1:], ranks[..., :-1])
    last = np.maximum(ranks[..., 1:], ranks[..., :-1])
    # Two neighbours lie apart for the bounds between them.
    flat = np.arange(order[..., 0].size)[:, np.newaxis] * (count + 1)
    steps = np.bincount((flat + first.reshape(-1, count - 1)).ravel(), minlength=flat.size * (count + 1))
    steps = steps - np.bincount((flat + last.reshape(-1, count - 1)).ravel(), minlength=flat.size * (count + 1))
    return np.cumsum(steps.reshape(*order.shape[:-1], count + 1), axis=-1)


def _taken(from_: Floats, at: Wholes) -> Floats:
    return np.asarray(np.take_along_axis(from_, at[..., np.newaxis], axis=-1)[..., 0])
