"""Latencies of all requests, and not of those alone that were answered; and what those that are missing may have been.

A request that failed has no latency, and a cell that failed has none at all. To leave them out would make an arm look
fast that drops what is slow. So a request that failed counts as slower than every one that was answered, and a
percentile is one of *all* requests: with 10 % of failures the median of all is the 55.6th percentile of the answers.

And a comparison is computed again with what is missing at either end of what it may have been, and between
(`Bounds`). A verdict stands when it holds throughout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.plan.metric import Metric
from anywire_experiment.statistics import FEWEST_BLOCKS, Comparison, ShareComparison
from anywire_experiment.statistics.samples import statistic_of

AnyComparison = TypeVar("AnyComparison", Comparison, ShareComparison)
MINUS = "\N{MINUS SIGN}"


ANYTHING = 1e9
"""A ratio that a missing block may have had, and its inverse another: larger than any that is measured. How much larger
makes no difference."""


MOST_MISSING = 3
"""Missing blocks beside which there may be a verdict: each of them may have been anything beside all of the others."""


class Bounds(msgspec.Struct, frozen=True):
    """What a ratio comes to, in the blocks that both arms have, when the requests that failed would have been as fast
    as may be in the candidate and as slow as may be in the baseline (``low``), and the other way round (``high``). Of
    shares it is their difference.

    ``failed_baseline`` and ``failed_candidate`` are the shares of requests without an answer, ``blocks`` how many
    blocks there should be, and ``missing`` how many of them one arm or both do not have. ``p_different`` and
    ``p_equivalent`` are those without any regard to what is missing."""

    low: float
    high: float
    failed_baseline: float
    failed_candidate: float
    blocks: int
    missing: int
    p_different: float
    p_equivalent: float


class Ends(NamedTuple):
    """What a block's statistic is of all requests, those that failed taken for slower than all (``value``, None where
    it lies among these), and the least and the most that it may have been: they were as fast as the fastest answer, or
    took ``ceiling``."""

    value: float | None
    low: float
    high: float


def ends_of(answered: Floats, failed: int, statistic: str, ceiling: float) -> Ends:
    """Of the values of the requests that were answered, at least one, and the number of those that failed. ``ceiling``
    is what a request may take before its client gives up, in the unit of the values."""
    of = statistic_of(statistic)
    if not failed:
        only = of(answered)
        return Ends(only, only, only)
    low = of(np.concatenate([answered, np.full(failed, answered.min())]))
    high = of(np.concatenate([answered, np.full(failed, max(ceiling, float(answered.max())))]))
    if statistic == "mean":
        # It has no rank: the mean of what a request takes at most until its client gives up.
        return Ends(high, low, high)
    share = 0.5 if statistic == "median" else float(statistic[1:]) / 100
    among_answers = (answered.size + failed - 1) * share <= answered.size - 1
    return Ends(high if among_answers else None, low, high)


class Sides(NamedTuple):
    """The two arms of a comparison by block, blocks without any answer left out, and their shares of failed
    requests."""

    baseline: Mapping[int, Ends]
    candidate: Mapping[int, Ends]
    failed: tuple[float, float]

    @property
    def is_whole(self) -> bool:
        """Whether nothing failed in them."""
        return all(each.low == each.high for side in (self.baseline, self.candidate) for each in side.values())


def scaled(given: Mapping[int, Ends], values: Mapping[int, float], by_now: Mapping[int, float]) -> dict[int, Ends]:
    """With all of a block's ends multiplied by what its value was multiplied by, to take an effect out."""
    factors = {block: by_now[block] / value for block, value in values.items() if block in by_now and value > 0.0}
    return {
        block: Ends(each.value, each.low * factors.get(block, 1.0), each.high * factors.get(block, 1.0))
        for block, each in given.items()
    }


def bounded(
    found: Comparison, judge: Callable[[list[float]], Comparison], sides: Sides, blocks: Sequence[int]
) -> tuple[Comparison, Bounds | None]:
    """``found``, the comparison of the blocks that both arms have, with p-values that hold whatever the missing were;
    and what it comes to at both ends, None where nothing is missing of ``blocks``. ``judge`` compares ratios, given in
    the order in which the blocks ran.

    A block without an answer in one arm, or without its cell, may have had any ratio (`ANYTHING`). Blocks are rarely
    missing at random: the slowest ones of an arm run into a timeout, and nothing in the others tells how slow they
    were. So a verdict stands beside a missing block where the test can bear one that lies anywhere (`_completions`)."""
    both = [each for each in blocks if each in sides.baseline and each in sides.candidate]
    missing = len(blocks) - len(both)
    if (not missing and sides.is_whole) or len(both) < 2:
        return found, None
    low = {each: _ratio(sides.candidate[each].low, sides.baseline[each].high) for each in both}
    high = {each: _ratio(sides.candidate[each].high, sides.baseline[each].low) for each in both}
    told = Bounds(
        _typical(low),
        _typical(high),
        *sides.failed,
        len(blocks),
        missing,
        found.p_different,
        found.p_equivalent,
    )
    if missing > MOST_MISSING:
        return _judged(found, 1.0, 1.0), told
    middle = {each: math.sqrt(low[each] * high[each]) for each in both}
    made = (_filled(given, pattern, blocks) for given, pattern in _completions(low, middle, high, missing))
    return _worst(found, (judge(each) for each in made), lambda each: each.ratio.value > 1.0), told


def _completions(
    low: Mapping[int, float], middle: Mapping[int, float], high: Mapping[int, float], missing: int
) -> Iterator[tuple[Mapping[int, float], Sequence[float]]]:
    """What all blocks may have shown: the ratios of those that there are, and in their order those of the missing ones.
    Each of these may have been on any side of 1 and of the margin, whatever the others were: a test that regards the
    order of blocks may stand at the ends and not between."""
    yield low, [1 / ANYTHING] * missing
    yield high, [ANYTHING] * missing
    for pattern in itertools.product((1 / ANYTHING, 1.0, ANYTHING), repeat=missing) if missing else ():
        yield middle, pattern


def _filled(given: Mapping[int, float], pattern: Iterable[float], blocks: Sequence[int]) -> list[float]:
    of_missing = iter(pattern)
    return [given[each] if each in given else next(of_missing) for each in blocks]


def bounded_shares(
    found: ShareComparison,
    judge: Callable[[list[float], list[float]], ShareComparison],
    baseline: Mapping[int, float],
    candidate: Mapping[int, float],
    blocks: Sequence[int],
) -> tuple[ShareComparison, Bounds | None]:
    """The same of shares, of which a missing one lies between 0 and 1. In them failed requests count already."""
    missing = [each for each in blocks if each not in baseline or each not in candidate]
    if not missing:
        return found, None
    completed = (
        judge(
            [baseline.get(each, before) for each in blocks],
            [candidate.get(each, after) for each in blocks],
        )
        for before, after in ((1.0, 0.0), (0.0, 1.0), (found.baseline, found.candidate))
    )
    apart = found.difference.value
    told = Bounds(apart, apart, 0.0, 0.0, len(blocks), len(missing), found.p_different, found.p_equivalent)
    return _worst(found, completed, lambda each: each.difference.value > 0.0), told


def _ratio(candidate: float, baseline: float) -> float:
    """Of what may be 0, where nothing is known, a ratio all the same."""
    return min(max(candidate, 1 / ANYTHING) / max(baseline, 1 / ANYTHING), ANYTHING)


def _typical(ratios: Mapping[int, float]) -> float:
    return float(np.median([*ratios.values()]))


def _worst(
    found: AnyComparison, completed: Iterable[AnyComparison], side: Callable[[AnyComparison], bool]
) -> AnyComparison:
    """With the largest p-values: the test rejects when it does so whatever the missing were. No difference is told
    where it lies on both ``side``s of none, or where the arms may be equivalent for all that is known; and nothing
    where all blocks might be shown to depend on each other too much."""
    alpha, of_found = 1.0 - found.level, side(found)
    different, equivalent = found.p_different, found.p_equivalent
    least = equivalent
    for each in completed:
        if isinstance(each, Comparison) and each.order.too_dependent:
            return _judged(found, 1.0, 1.0)
        different = max(different, each.p_different) if side(each) == of_found else 1.0
        least, equivalent = min(least, each.p_equivalent), max(equivalent, each.p_equivalent)
        if least <= alpha < equivalent:
            different = 1.0
        if min(different, equivalent) > alpha:
            break
    return _judged(found, different, equivalent)


def _judged(found: AnyComparison, different: float, equivalent: float) -> AnyComparison:
    return msgspec.structs.replace(
        found,
        p_different=different,
        p_equivalent=equivalent,
        adjusted_different=different,
        adjusted_equivalent=equivalent,
    )


def share_failed(blocks: Mapping[int, Measured], metric: Metric) -> float:
    """Of the requests of all blocks those that have no value of ``metric`` because they failed."""
    requests = sum(each.requests for each in blocks.values())
    return sum(each.lacking(metric) for each in blocks.values()) / requests if requests else 0.0


def not_held(found: Comparison | ShareComparison, bounds: Bounds, names: tuple[str, str]) -> tuple[str, str] | None:
    """Why ``found``, judged in its family, gives no verdict where the answers alone would, and what to do; None where
    it gives one, or they would not either. ``names``: of the baseline and the candidate."""
    alpha = 1.0 - found.level
    if found.blocks < FEWEST_BLOCKS or min(found.adjusted_different, found.adjusted_equivalent) <= alpha:
        return None
    if min(bounds.p_different, bounds.p_equivalent) > alpha:
        return None
    shares = dict(zip(names, (bounds.failed_baseline, bounds.failed_candidate), strict=True))
    told = [f"{100 * share:.2g} % of the requests of {name} failed" for name, share in shares.items() if share]
    if bounds.missing:
        told.append(f"{bounds.missing} of {bounds.blocks} blocks are missing")
        remedy = "find out why, and run the plan anew"
        return f"{' and '.join(told)}: what is missing may have been the slowest or the fastest", remedy
    low, high = _change(bounds.low), _change(bounds.high)
    remedy = "find out why they failed, or compare goodput under an `objective`, which counts them"
    return f"{' and '.join(told)}, so all requests together may be anything from {low} to {high}", remedy


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", MINUS) if 1 / 3 < ratio < 3 else f"{ratio:.3g} times"


def reach(bounds: Bounds | None) -> Iterator[str]:
    """What an estimate may have been, where requests failed, for a reader of its verdict."""
    if bounds is not None and (bounds.failed_baseline or bounds.failed_candidate):
        low, high = _change(bounds.low), _change(bounds.high)
        yield f"whatever the failed requests would have shown, the estimate lies between {low} and {high}"
