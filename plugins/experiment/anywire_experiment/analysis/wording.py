"""Findings in sentences that need no statistician."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from anywire_experiment.analysis.metrics import MEANINGS, SHARES, Meaning
from anywire_experiment.plan.metric import Metric
from anywire_experiment.statistics import (
    FEWEST_BLOCKS,
    Comparison,
    Estimate,
    Outcome,
    ShareComparison,
    Verdict,
)

MINUS = "\N{MINUS SIGN}"
MANY = 3.0
"""Ratio from which on it is told as a factor and not in percent."""


def meaning_of(metric: str) -> Meaning:
    """Of a metric that was read from a file, and is known."""
    return MEANINGS[metric_of(metric)]


def metric_of(name: str) -> Metric:
    return next(metric for metric in MEANINGS if metric == name)


def percent(share: float, signed: bool = False) -> str:
    text = f"{100 * share:+.1f}" if signed else f"{100 * share:.1f}"
    return f"{'0.0' if float(text) == 0 else text.replace('-', MINUS)} %"


def place(metric: str, levels: Mapping[str, str]) -> str:
    """What a finding is about: ``latency, agents 4``."""
    return ", ".join([meaning_of(metric).title, *(f"{factor} {label}" for factor, label in levels.items())])


def judged(baseline: str, candidate: str, compared: Comparison, verdict: Verdict, words: tuple[str, str]) -> str:
    """Which of two arms is how much better."""
    better = verdict.outcome is Outcome.BETTER
    if better or verdict.outcome is Outcome.WORSE:
        return f"{candidate} is {words[0 if better else 1]} than {baseline} by {_change(compared.ratio)}"
    if verdict.outcome is Outcome.EQUIVALENT:
        seen = _seen(baseline, candidate, compared.equivalence)
        return f"{candidate} and {baseline} are equivalent within {100 * compared.margin:g} %: {seen}"
    seen = _seen(baseline, candidate, compared.ratio)
    few = f", and a verdict takes {FEWEST_BLOCKS}" if compared.blocks < FEWEST_BLOCKS else ""
    if verdict.blocks_needed is None:
        return (
            f"not judged: the blocks of {candidate} and {baseline} depend on each other too much; {seen} in "
            f"{compared.blocks} blocks. Find what their neighbours share, or pause between blocks"
        )
    return (
        f"not enough data to tell {candidate} from {baseline}: {seen} in {compared.blocks} blocks{few}; a new run of "
        f"{verdict.blocks_needed} blocks would decide with a chance of 80 % or more"
    )


def of_order(baseline: str, candidate: str, compared: Comparison, meaning: Meaning) -> Iterator[str]:
    """What the order of the blocks shows that a reader must know."""
    order = compared.order
    if order.drifts:
        word = meaning.words[0 if (order.per_block.value > 1.0) == meaning.larger_is_better else 1]
        yield (
            f"it drifts: {candidate} gets {word} than {baseline} by {_change(order.per_block)} per block, as with a "
            f"leak: from a ratio of {_plain(order.first)} in the first block to {_plain(order.last)} in the last "
            f"(p = {order.p_drift:.2g}); what is told holds for the middle of the run"
        )
    if order.depends:
        low, high = (f"{each:.2f}".replace("-", MINUS) for each in (order.lag1.low, order.lag1.high))
        yield (
            f"blocks are like the ones before (lag-1 correlation {order.lag1.value:.2f}, {100 * order.lag1.level:g} % "
            f"interval {low} to {high}): {compared.blocks} are worth some {order.worth:.0f}, which the interval allows "
            "for"
        )


def judged_shares(
    baseline: str, candidate: str, compared: ShareComparison, verdict: Verdict, words: tuple[str, str]
) -> str:
    """The same of two arms whose shares are compared by their difference."""
    difference = compared.difference
    if verdict.outcome in (Outcome.BETTER, Outcome.WORSE):
        word = words[0 if verdict.outcome is Outcome.BETTER else 1]
        low, high = sorted(abs(each) for each in (difference.low, difference.high))
        apart = f"{100 * abs(difference.value):.1f} percentage points"
        limits = f"{100 * difference.level:g} % interval {100 * low:.1f} to {100 * high:.1f}"
        return f"{candidate} is {word} than {baseline} by {apart} ({limits})"
    shown = compared.equivalence if verdict.outcome is Outcome.EQUIVALENT else difference
    side = "above" if shown.value >= 0 else "below"
    ends = [percent(each, signed=True).removesuffix(" %") for each in (shown.low, shown.high)]
    limits = f"{100 * shown.level:g} % interval {ends[0]} to {ends[1]}"
    seen = f"{candidate} is {100 * abs(shown.value):.1f} percentage points {side} {baseline} ({limits})"
    if verdict.outcome is Outcome.EQUIVALENT:
        return f"{candidate} and {baseline} are equivalent within {100 * compared.margin:g} percentage points: {seen}"
    few = f", and a verdict takes {FEWEST_BLOCKS}" if compared.blocks < FEWEST_BLOCKS else ""
    return (
        f"not enough data to tell {candidate} from {baseline}: {seen} in {compared.blocks} blocks{few}; a new run of "
        f"{verdict.blocks_needed} blocks would decide with a chance of 80 % or more"
    )


def unjudged(baseline: str, candidate: str, difference: Estimate, metric: str) -> str:
    """The difference of two arms whose ratio does not exist."""
    meaning = meaning_of(metric)
    scale, unit = (100, "percentage points") if metric_of(metric) in SHARES else (1, meaning.unit)
    low, high = (_plain(scale * each, "+") for each in (difference.low, difference.high))
    limits = f"({100 * difference.level:g} % interval {low} to {high} {unit})"
    if difference.low <= 0.0 <= difference.high:
        return f"no difference of {candidate} from {baseline} is shown {limits}"
    word = meaning.words[0 if (difference.value > 0) == meaning.larger_is_better else 1]
    side = "above" if difference.value > 0 else "below"
    apart = f"{_plain(scale * abs(difference.value))} {unit} {side}"
    return f"{candidate} has a {meaning.title} {apart} {baseline}'s {limits}: {word}, but not judged against the margin"


def not_told(baseline: str, candidate: str, compared: Comparison, unit: str) -> tuple[str, str]:
    """The reason why a ratio without an interval is not judged, and the sentence with what was seen."""
    reason = f"an interval of {100 * compared.level:g} % cannot be estimated with {compared.blocks} blocks"
    seen = f"{candidate} {_plain(compared.candidate)} {unit}, {baseline} {_plain(compared.baseline)} {unit}"
    few = f", and a verdict takes {FEWEST_BLOCKS}" if compared.blocks < FEWEST_BLOCKS else ""
    return reason, f"{candidate} and {baseline}: {reason}{few}; {seen}"


def moments(count: float) -> str:
    return f"{count:g} moment{'' if count == 1 else 's'}"


def _change(ratio: Estimate) -> str:
    """Of a larger figure how much is added, of a smaller one how much is missing; of one many times as large, how many
    times."""
    given = (ratio.value, ratio.low, ratio.high)
    limits = f"{100 * ratio.level:g} % interval"
    if ratio.value >= MANY or ratio.value <= 1 / MANY:
        times, *ends = (each if ratio.value > 1 else 1 / each for each in given)
        low, high = sorted(ends)
        return f"a factor of {_plain(times)} ({limits} {_plain(low)} to {_plain(high)})"
    sign = 1 if ratio.value >= 1 else -1
    change, *ends = (sign * (each - 1) for each in given)
    low, high = sorted(ends)
    return f"{percent(change)} ({limits} {percent(low)} to {percent(high)})"


def _seen(baseline: str, candidate: str, ratio: Estimate) -> str:
    """What was seen, where that does not decide, with the interval that goes with the judgement."""
    limits = f"{100 * ratio.level:g} % interval"
    if ratio.value >= MANY or ratio.value <= 1 / MANY:
        within = f"{limits} {_plain(ratio.low)} to {_plain(ratio.high)}"
        return f"{candidate} is {_plain(ratio.value)} times {baseline} ({within})"
    low, high = percent(ratio.low - 1, signed=True), percent(ratio.high - 1, signed=True)
    apart = ratio.value - 1
    side = "above" if apart >= 0 else "below"
    return f"{candidate} is {percent(abs(apart))} {side} {baseline} ({limits} {low} to {high})"


def _plain(value: float, sign: str = "") -> str:
    """With three digits, or all that stand before the point."""
    return f"{value:{sign}{'.3g' if abs(value) < 1000 else '.0f'}}".replace("-", MINUS)
