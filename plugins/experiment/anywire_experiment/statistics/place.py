"""What the place in a block does: an additive model of blocks, arms and places."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from anywire_experiment.statistics.probability import f_above, student_quantile
from anywire_experiment.statistics.samples import Estimate, Floats, finite_series

Integers = NDArray[np.int64]

FOUND = 0.05
"""p-value at or below which an effect of the place is shown, and taken out."""


class PlaceEffects(msgspec.Struct, frozen=True):
    """What was found. ``effects`` are by place, from the first: the value at this place by the geometric mean at the
    others (1.1: 10 % larger), each with its own interval. ``p`` is that of "no place makes a difference",
    ``p_carry_over`` that of "what ran directly before makes no difference", None where that cannot be told apart from
    the place, as with two arms."""

    values: int
    effects: list[Estimate]
    p: float
    p_carry_over: float | None


def drawn_apart(log_ratios: Floats) -> Floats:
    """Log ratios (..., blocks), from which effects of the place were taken, drawn apart about their mean.

    The effects were estimated from these same values, which makes their spread smaller by one block's share of all: of
    the ``blocks - 1`` degrees of freedom of two arms one is gone, with any number of arms. At least 3 blocks.
    """
    blocks = log_ratios.shape[-1]
    mean = log_ratios.mean(axis=-1, keepdims=True)
    wider: Floats = mean + math.sqrt((blocks - 1) / (blocks - 2)) * (log_ratios - mean)
    return wider


class Layout:
    """Which value is of which block, arm and place, each a number from 0, and what ran directly before it in the
    block: an arm, or -1. One entry per cell that has a value. Many experiments of one layout can be looked at at once.

    The logarithm of a value is taken for block + arm + place + chance, by least squares (as a Latin square is analysed,
    Fisher 1935; with blocks missing too). Assumes errors of one variance, independent of each other.
    """

    def __init__(self, block: ArrayLike, arm: ArrayLike, place: ArrayLike, before: ArrayLike) -> None:
        self._place = np.asarray(place, dtype=np.int64)
        self.places = int(self._place.max()) + 1 if self._place.size else 0
        others = np.hstack(
            [_indicators(np.asarray(block, dtype=np.int64)), _indicators(np.asarray(arm, dtype=np.int64))]
        )
        basis = _orthonormal(others)
        contrasts = _contrasts(self.places)
        columns = _without(_indicators(self._place, self.places) @ contrasts, basis)
        self._basis = basis
        self.degrees: int = self._place.size - basis.shape[1] - columns.shape[1]
        self._solver = _solver(columns) if columns.shape[1] and self.degrees > 0 else None
        if self._solver is not None:
            # From contrasts to what the mean of the other places is exceeded by.
            against = self.places / max(self.places - 1, 1)
            self._to_effects = against * contrasts @ self._solver
            self._fitted = _orthonormal(columns)
            self._carry = self._carry_over(np.asarray(before, dtype=np.int64))

    @property
    def is_estimable(self) -> bool:
        """Whether these cells can tell places apart from blocks and arms at all."""
        return self._solver is not None

    def effects(self, logs: Floats) -> tuple[Floats, Floats]:
        """Of each place, in logarithms against the mean of the others, and the standard errors: (..., places)."""
        rest = _without(logs.T, self._basis).T
        left = rest - rest @ self._fitted @ self._fitted.T
        variance = np.square(left).sum(axis=-1) / self.degrees
        spread = np.sqrt(np.square(self._to_effects).sum(axis=-1))
        return rest @ self._to_effects.T, np.sqrt(variance)[..., np.newaxis] * spread

    def p_values(self, logs: Floats) -> Floats:
        """Of "no place makes a difference": the F-test, (...)."""
        return self._p_of(_without(logs.T, self._basis).T, self._fitted, self.degrees)

    def p_carry_over(self, logs: Floats) -> Floats | None:
        """Of "what ran directly before makes no difference", with the places taken out first."""
        if self._carry is None:
            return None
        rest = _without(logs.T, self._basis).T
        rest = rest - rest @ self._fitted @ self._fitted.T
        return self._p_of(rest, self._carry, self.degrees - self._carry.shape[1])

    def adjusted(self, logs: Floats) -> Floats:
        """``logs`` less the effect of each value's place, the mean over the places unchanged."""
        effects, _ = self.effects(logs)
        return logs - effects[..., self._place] * (self.places - 1) / self.places

    def told(self, logs: Floats, level: float) -> PlaceEffects:
        """Of one experiment, ``logs`` (n,)."""
        series = finite_series(logs, at_least=self._place.size, name="values")
        effects, errors = self.effects(series)
        reach = float(student_quantile((1.0 + level) / 2.0, self.degrees))
        found = [
            Estimate(math.exp(effect), math.exp(effect - reach * error), math.exp(effect + reach * error), level)
            for effect, error in zip(effects, errors, strict=True)
        ]
        carried = self.p_carry_over(series)
        return PlaceEffects(
            series.size, found, float(self.p_values(series)), None if carried is None else float(carried)
        )

    def _carry_over(self, before: Integers) -> Floats | None:
        """What is left of what ran before when blocks, arms and places are taken out; None when that is nothing."""
        known = _indicators(before + 1)[:, 1:]
        left = _without(_without(known, self._basis), self._fitted)
        carried = _orthonormal(left)
        # Fewer directions than arms less one: with two arms the second always follows the first.
        return carried if carried.shape[1] and carried.shape[1] < self.degrees else None

    @staticmethod
    def _p_of(rest: Floats, fitted: Floats, degrees: int) -> Floats:
        explained = np.square(rest @ fitted).sum(axis=-1)
        left = np.square(rest).sum(axis=-1) - explained
        count = fitted.shape[1]
        flat = left <= 1e-24 * rest.shape[-1]
        ratio = explained / count / np.where(flat, 1.0, left / degrees)
        exact = np.where(explained <= 1e-24 * rest.shape[-1], 1.0, 0.0)
        found: Floats = np.where(flat, exact, f_above(ratio, count, degrees))
        return found


def _indicators(of: Integers, count: int | None = None) -> Floats:
    size = int(of.max()) + 1 if count is None else count
    made: Floats = (of[:, np.newaxis] == np.arange(size)).astype(np.float64)
    return made


def _contrasts(count: int) -> Floats:
    """An orthonormal basis of what sums to zero: (count, count - 1)."""
    return _orthonormal(np.eye(count) - 1.0 / count)


def _orthonormal(columns: Floats) -> Floats:
    """An orthonormal basis of what the columns span."""
    if not columns.size:
        return np.zeros((columns.shape[0], 0))
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    made: Floats = left[:, sizes > 1e-9 * max(sizes[0], 1e-300)]
    return made if sizes[0] > 1e-9 else made[:, :0]


def _without(columns: Floats, basis: Floats) -> Floats:
    """Less the part that lies in the span of ``basis``."""
    left: Floats = columns - basis @ (basis.T @ columns)
    return left


def _solver(columns: Floats) -> Floats | None:
    """The matrix that gives the coefficients of ``columns`` by least squares; None when these are not told apart."""
    sizes = np.linalg.svd(columns, compute_uv=False)
    inverse: Floats = np.asarray(np.linalg.pinv(columns), dtype=np.float64)
    return inverse if sizes[-1] > 1e-9 * math.sqrt(columns.shape[0]) else None
