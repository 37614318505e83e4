"""How many blocks a comparison takes, and what so many can show: by simulation of the very rule that judges it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from anywire_experiment.statistics.median import MedianOverBlocks, median_over_blocks
from anywire_experiment.statistics.paired import FEWEST_BLOCKS
from anywire_experiment.statistics.probability import chi_squared_quantile, student_quantile
from anywire_experiment.statistics.samples import Floats, fraction, positive

SIMULATED = 2000
MOST_SIMULATED = 400
"""Blocks up to which experiments are simulated; beyond, limits shrink with the root of the blocks."""
QUANTILES = (np.arange(16) + 0.5) / 16
"""Where the distribution of the true spread is sampled, given the one that was seen."""


def _numbers_tried() -> list[int]:
    tried = [*range(FEWEST_BLOCKS, 50)]
    while tried[-1] < 1_000_000:
        tried.append(math.ceil(1.04 * tried[-1]))
    return tried


_TRIED = _numbers_tried()


def power(
    spread: float,
    blocks: int,
    margin: float,
    *,
    true_ratio: float = 1.0,
    alpha: float = 0.05,
    family: int = 1,
    known_from: int | None = None,
    of_mean: bool = False,
) -> tuple[float, float]:
    """The chances that ``blocks`` blocks show equivalence, and that they show a difference.

    ``spread`` is the standard deviation of the log ratio between blocks (`Comparison.spread`), ``margin`` relative
    (0.10 for 10 %), ``true_ratio`` what is the case, ``family`` how many comparisons are judged together: each gets its
    share of ``alpha``, which is the least that Holm's correction leaves to any. ``known_from``: the blocks of the run
    that told the spread, when it is an estimate; the chance is then the mean over the spreads that may be the true one.
    None where the spread is known. ``of_mean``: for a mean that is judged by its spread, as shares are, and not a
    median.

    By simulation, for normal log ratios that are independent: heavy tails and skew change a median's power little,
    dependence and drift take some. ValueError for numbers that make no sense.
    """
    share = _checked(spread, margin, alpha, family, known_from)
    if blocks < FEWEST_BLOCKS:
        return 0.0, 0.0
    shift, edge = math.log(positive(true_ratio, "true_ratio")), math.log1p(margin)
    spreads = _spreads(spread, known_from)
    return (
        _equivalence(blocks, spreads, shift, edge, share, of_mean),
        _difference(blocks, spreads, shift, share, of_mean),
    )


def blocks_needed(
    spread: float,
    margin: float,
    *,
    true_ratio: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    family: int = 1,
    known_from: int | None = None,
    of_mean: bool = False,
) -> int:
    """The least number of blocks, 16 or more, with which `compare` decides with chance ``power``; see `power` for the
    rest.

    Without ``true_ratio``: enough to show that arms of ratio 1 are equivalent, and that arms as far apart as the
    margin differ. With it: enough to show the one or the other, whichever takes fewer blocks, of arms of that ratio;
    halfway to the margin takes the most. ``of_mean``: for a mean that is judged by its spread, as shares are, and not
    a median. Beyond 50 blocks the number is the least to within 4 %.
    """
    fraction(power, "power")
    share = _checked(spread, margin, alpha, family, known_from)
    spreads, edge = _spreads(spread, known_from), math.log1p(margin)

    def same(blocks: int, shift: float) -> float:
        return _equivalence(blocks, spreads, shift, edge, share, of_mean)

    def apart(blocks: int, shift: float) -> float:
        return _difference(blocks, spreads, shift, share, of_mean)

    if true_ratio is None:
        return _fewest(lambda n: min(same(n, 0.0), apart(n, edge)), power)
    shift = math.log(positive(true_ratio, "true_ratio"))
    return _fewest(lambda n: max(same(n, shift), apart(n, shift)), power)


def fewest_blocks(family: int, alpha: float = 0.05) -> int:
    """With fewer blocks than these, 16 or more, no difference can be shown in a family of so many comparisons, not even
    where all blocks agree: the chance of that is 2 / 2**blocks."""
    return max(FEWEST_BLOCKS, math.ceil(math.log2(2.0 * family / fraction(alpha, "alpha"))))


def _checked(spread: float, margin: float, alpha: float, family: int, known_from: int | None) -> float:
    """The share of α that each comparison has."""
    positive(margin, "margin")
    fraction(alpha, "alpha")
    if not (math.isfinite(spread) and spread >= 0.0):
        raise ValueError(f"spread is a standard deviation, zero or more, not {spread}")
    if family < 1:
        raise ValueError(f"family is a number of comparisons, 1 or more, not {family}")
    if known_from is not None and known_from < 2:
        raise ValueError(f"known_from: a spread is known from 2 blocks or more, not {known_from}")
    return alpha / family


def _spreads(spread: float, known_from: int | None) -> Floats:
    """The true spreads that may be behind an estimate, each as likely as the others."""
    if known_from is None:
        return np.array([spread])
    degrees = known_from - 1
    return np.asarray(spread * np.sqrt(degrees / chi_squared_quantile(QUANTILES, degrees)))


@lru_cache(maxsize=512)
def _limits(blocks: int, tail: float) -> tuple[Floats, Floats]:
    """Lower and upper limits of simulated experiments without effect and of spread 1, each missing with ``tail``."""
    if blocks > MOST_SIMULATED:
        low, high = _limits(MOST_SIMULATED, tail)
        shrunk = math.sqrt(MOST_SIMULATED / blocks)
        return low * shrunk, high * shrunk
    return _simulated(blocks).interval(1.0 - 2.0 * tail)


@lru_cache(maxsize=4)
def _simulated(blocks: int) -> MedianOverBlocks:
    return median_over_blocks(np.random.default_rng(blocks).standard_normal((SIMULATED, blocks)))


@lru_cache(maxsize=512)
def _limits_of_mean(blocks: int, tail: float) -> tuple[Floats, Floats]:
    """The same of Student's interval of a mean."""
    rng = np.random.default_rng(blocks)
    mean = rng.standard_normal(SIMULATED) / math.sqrt(blocks)
    spread = np.sqrt(rng.chisquare(blocks - 1, SIMULATED) / (blocks - 1))
    reach = float(-student_quantile(tail, blocks - 1)) * spread / math.sqrt(blocks)
    return mean - reach, mean + reach


def _difference(blocks: int, spreads: Floats, shift: float, share: float, of_mean: bool = False) -> float:
    low, high = (_limits_of_mean if of_mean else _limits)(blocks, share / 2.0)
    found = (_scaled(spreads, low) > -shift) | (_scaled(spreads, high) < -shift)
    return float(found.mean())


def _equivalence(blocks: int, spreads: Floats, shift: float, edge: float, share: float, of_mean: bool = False) -> float:
    low, high = (_limits_of_mean if of_mean else _limits)(blocks, share)
    found = (_scaled(spreads, low) + shift > -edge) & (_scaled(spreads, high) + shift < edge)
    return float(found.mean())


def _scaled(spreads: Floats, limits: Floats) -> Floats:
    """Of each spread; limits that so few blocks do not have stay infinite."""
    return np.asarray(np.maximum(spreads, 1e-300)[:, np.newaxis] * limits)


def _fewest(power_of: Callable[[int], float], power: float) -> int:
    low, high = -1, len(_TRIED) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power_of(_TRIED[middle]) < power else (low, middle)
    return _TRIED[high]
