"""What may be said of a comparison, in words."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from enum import StrEnum
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from anywire_experiment.statistics.paired import FEWEST_BLOCKS, Comparison
from anywire_experiment.statistics.planning import blocks_needed
from anywire_experiment.statistics.samples import ROUNDING, Estimate, Floats, finite_series
from anywire_experiment.statistics.share_difference import ShareComparison

Key = TypeVar("Key", bound=Hashable)
AnyComparison = Comparison | ShareComparison
Each = TypeVar("Each", bound=AnyComparison)

POWER = 0.8
"""The chance of a decision that the advised number of blocks is for."""


class Outcome(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    NOT_ENOUGH_DATA = "not enough data"


class Verdict(msgspec.Struct, frozen=True):
    """What is said of the candidate against the baseline.

    ``words`` is the verdict alone ("slower", "equivalent within 10 %", "not enough data"), ``text`` the whole
    sentence with effect and interval. ``different`` tells whether a difference is shown, which an equivalent
    candidate may have too: one smaller than the margin. ``blocks`` were used; ``blocks_needed`` is how many a new
    run should have, None when this one decided.
    """

    outcome: Outcome
    words: str
    text: str
    different: bool
    blocks: int
    blocks_needed: int | None


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values of a family of tests, (m,) in the order given (Holm 1979).

    Rejecting those at or below α keeps the chance of any false rejection at or below α, however the tests depend on
    each other. ValueError for numbers that are no p-values.
    """
    given = finite_series(p_values, name="p-values")
    if not ((given >= 0.0) & (given <= 1.0)).all():
        raise ValueError(f"p-values lie between 0 and 1: {given.tolist()}")
    order = np.argsort(given, kind="stable")
    stepped = given[order] * np.arange(given.size, 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def as_family(comparisons: Mapping[Key, Each]) -> dict[Key, Each]:
    """The same comparisons with p-values adjusted for being judged together.

    Tests of difference and tests of equivalence are two families, each corrected by `holm`: in an experiment the
    chance of any false "faster" or "slower" is at most 1 - level, and so is that of any false "equivalent". A
    comparison of fewer than 16 blocks, or of blocks that depend on each other too much, takes its place in the family
    but shows nothing.
    """
    if not comparisons:
        return {}
    enough = [_may_show(each) for each in comparisons.values()]
    different = holm(np.where(enough, [each.p_different for each in comparisons.values()], 1.0))
    equivalent = holm(np.where(enough, [each.p_equivalent for each in comparisons.values()], 1.0))
    return {
        key: msgspec.structs.replace(
            each,
            adjusted_different=float(different[at]),
            adjusted_equivalent=float(equivalent[at]),
            family=len(comparisons),
        )
        for at, (key, each) in enumerate(comparisons.items())
    }


def verdict(
    comparison: Comparison,
    *,
    larger_is_better: bool = False,
    words: tuple[str, str] = ("faster", "slower"),
    unit: str = "",
) -> Verdict:
    """The verdict on the candidate, by the adjusted p-values and α = 1 - level. The first that applies:

    - *not enough data* with fewer than 16 blocks, or when blocks are shown to depend on each other more than the
      intervals allow for (`RunOrder.too_dependent`);
    - *equivalent within the margin* when both one-sided tests reject (``adjusted_equivalent`` ≤ α): the interval of
      level 1 - 2α lies inside the margin, for as long as the run was if the ratio drifts. A difference shown as well is
      told, and remains equivalent: it was agreed beforehand not to matter;
    - *faster* or *slower* when the two-sided test rejects (``adjusted_different`` ≤ α): the interval excludes 1;
      the difference may be larger or smaller than the margin, which the interval tells;
    - *not enough data* else, with the number of blocks a new run should have. New, because blocks added to this
      one until it decides would give a false verdict more often than α. The number is for arms that are alike or
      apart by the margin (`blocks_needed`), or if there were as many, for arms halfway between. It allows for the
      spread being known from this run only.

    ``larger_is_better`` for rates. ``words`` are used for a better and a worse candidate, and ``unit`` for the
    difference ("ms").
    """
    outcome, different = _decided(comparison, (comparison.ratio.value > 1.0) == larger_is_better)
    larger = comparison.ratio.value > 1.0
    direction = words[0] if larger == larger_is_better else words[1]
    needed: int | None = None
    if outcome is Outcome.EQUIVALENT:
        said = f"equivalent within {100 * comparison.margin:g} %"
        known = f"; p = {comparison.adjusted_different:.2g} for any difference" if different else ""
        text = f"{said} ({_amount(comparison, direction)}, {_interval(comparison.equivalence)}{known})"
    elif outcome is Outcome.NOT_ENOUGH_DATA:
        said = outcome.value
        needed = _advised(comparison, comparison.margin)
        seen = f"{_amount(comparison, direction)} ({_interval(comparison.ratio)}) in {comparison.blocks} blocks"
        if comparison.blocks >= FEWEST_BLOCKS and comparison.order.too_dependent:
            needed = None
            text = f"{said}: {seen} that depend on each other too much to be judged"
        else:
            text = (
                f"{said}: {seen}; a new run of {needed} blocks would decide with a chance of {100 * POWER:g} % or more"
            )
    else:
        said = direction
        text = f"{_amount(comparison, direction)} ({_interval(comparison.ratio)}; {_difference(comparison, unit)})"
    return Verdict(outcome, said, text, different, comparison.blocks, needed)


def share_verdict(
    comparison: ShareComparison, *, larger_is_better: bool = True, words: tuple[str, str] = ("more", "less")
) -> Verdict:
    """The same of shares: the margin is one of their difference, and the interval excludes 0."""
    better = (comparison.difference.value > 0.0) == larger_is_better
    outcome, different = _decided(comparison, better)
    needed: int | None = None
    shown, tail = comparison.difference, ""
    if outcome is Outcome.EQUIVALENT:
        said, shown = f"equivalent within {100 * comparison.margin:g} points", comparison.equivalence
    elif outcome is Outcome.NOT_ENOUGH_DATA:
        said = outcome.value
        needed = _advised_of_shares(comparison)
        chance = f"with a chance of {100 * POWER:g} % or more"
        tail = f" in {comparison.blocks} blocks; a new run of {needed} would decide {chance}"
    else:
        said = words[0] if better else words[1]
    limits = f"{100 * shown.level:g} % interval {100 * shown.low:+.1f} to {100 * shown.high:+.1f} points"
    text = f"{said}: {100 * shown.value:+.1f} points ({limits}){tail}"
    return Verdict(outcome, said, text, different, comparison.blocks, needed)


def _decided(comparison: Comparison | ShareComparison, better: bool) -> tuple[Outcome, bool]:
    """The outcome of a candidate that is ``better`` or worse, if a difference is shown, and whether one is."""
    alpha = 1.0 - comparison.level
    enough = _may_show(comparison)
    different = enough and comparison.adjusted_different <= alpha
    if enough and comparison.adjusted_equivalent <= alpha:
        return Outcome.EQUIVALENT, different
    if different:
        return (Outcome.BETTER if better else Outcome.WORSE), True
    return Outcome.NOT_ENOUGH_DATA, False


def _may_show(comparison: AnyComparison) -> bool:
    """Whether a verdict can go by its p-values."""
    dependent = isinstance(comparison, Comparison) and comparison.order.too_dependent
    return comparison.blocks >= FEWEST_BLOCKS and not dependent


def _advised(comparison: AnyComparison, margin: float) -> int:
    alpha = 1.0 - comparison.level

    def needed(true_ratio: float | None) -> int:
        return blocks_needed(
            comparison.spread,
            margin,
            true_ratio=true_ratio,
            power=POWER,
            alpha=alpha,
            family=comparison.family,
            known_from=comparison.blocks,
            of_mean=isinstance(comparison, ShareComparison),
        )

    least = needed(None)
    return least if least > comparison.blocks else needed(math.sqrt(1.0 + margin))


def _advised_of_shares(comparison: ShareComparison) -> int:
    if comparison.spread > ROUNDING:
        return _advised(comparison, math.expm1(comparison.margin))  # `blocks_needed` counts in logarithms of ratios
    # As many as show that arms which never differ are equivalent, see `compare_shares`.
    share = (1.0 - comparison.level) / comparison.family
    return max(FEWEST_BLOCKS, math.ceil(math.log(share) / math.log1p(-comparison.margin)))


def _amount(comparison: Comparison, direction: str) -> str:
    change = 100.0 * abs(comparison.ratio.value - 1.0)
    return f"{direction} by {change:.1f} %" if comparison.ratio.value != 1.0 else "no difference"


def _interval(ratio: Estimate) -> str:
    return f"{100 * ratio.level:g} % interval {100 * (ratio.low - 1):+.1f} % to {100 * (ratio.high - 1):+.1f} %"


def _difference(comparison: Comparison, unit: str) -> str:
    apart = comparison.difference
    return f"{apart.value:+.3g} {unit}".rstrip() + f", {apart.low:+.3g} to {apart.high:+.3g} {unit}".rstrip()
