"""Whether a condition is shown by records, and in which words that is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from anywire.errors import ConfigError
from anywire_experiment.analysis.metrics import MEANINGS, SHARES
from anywire_experiment.analysis.wording import percent
from anywire_experiment.gate.condition import Condition
from anywire_experiment.gate.evidence import Evidence
from anywire_experiment.statistics import FEWEST_BLOCKS
from anywire_experiment.statistics.probability import normal_quantile
from anywire_experiment.statistics.unpaired import Side

POWER = 0.8
_SHOWN = 3
"""Reasons that are told; of more only how many there are."""


class Found(NamedTuple):
    """What came of a condition: the sentences of what breaches it, and one on the rest. It is ``breached`` too where
    nothing at all could be judged, for then nothing speaks for it either."""

    condition: Condition
    breached: bool
    breaches: list[str]
    rest: str


def judged(conditions: Sequence[Condition], evidence: Sequence[Evidence], confidence: float) -> list[Found]:
    """Every condition on all of the evidence that it is about. With a chance of ``confidence`` none is breached by
    something that is not the case: each test gets its share of the rest (Bonferroni). Raises `ConfigError` for a
    condition that is about nothing in the records."""
    chosen = [[each for each in evidence if of.is_of(each.metric, each.workload, each.arm)] for of in conditions]
    for of, found in zip(conditions, chosen, strict=True):
        if not found:
            raise ConfigError(f"--fail-if {of.text!r}: the records have nothing that it is about; {_known(evidence)}")
    tests = sum(map(len, chosen))
    return [_of_condition(of, found, confidence, tests) for of, found in zip(conditions, chosen, strict=True)]


def _known(evidence: Sequence[Evidence]) -> str:
    def of(name: str) -> str:
        return ", ".join(dict.fromkeys(getattr(each, name) for each in evidence)) or "none"

    return f"metrics: {of('metric')}; workloads: {of('workload')}; arms: {of('arm')}"


def _of_condition(of: Condition, found: Sequence[Evidence], confidence: float, tests: int) -> Found:
    share = (1.0 - confidence) / tests
    sides: list[tuple[Evidence, Side]] = []
    reasons = []
    for each in found:
        side = each.limits(1.0 - 2.0 * share) if each.limits is not None else None
        if side is not None and _is_bounded(of, each, side):
            sides.append((each, side))
        else:
            few = f"{_least(share)} blocks are needed on either side for {tests} tests together"
            reasons.append(f"{each.about}, {MEANINGS[each.metric].title}: {each.reason or few}")
    if not sides:
        return Found(of, True, [f"cannot be judged, so it fails: {_some(reasons)}"], "")
    wide = f"{100 * confidence:g} % interval" + (f" for {tests} tests together" if tests > 1 else "")
    shown = [(each, side) for each, side in sides if _is_shown(of, each, side)]
    breaches = [f"{_told(of, each, side)} ({wide} {_limits(each, side)})" for each, side in shown]
    if None in of.larger.values():
        # Who must show something has not shown it where it cannot be judged.
        breaches += [f"not shown to be equivalent: {each}" for each in reasons]
        reasons = []
    others = [(each, side) for each, side in sides if not _is_shown(of, each, side)]
    return Found(of, bool(breaches), breaches, "; ".join(_rest(of, others, len(found), bool(shown), reasons, share)))


def _rest(
    of: Condition,
    others: Sequence[tuple[Evidence, Side]],
    count: int,
    some_are_shown: bool,
    reasons: Sequence[str],
    share: float,
) -> list[str]:
    """On what did not breach it."""
    said = []
    if others and None in of.larger.values():
        said.append(f"equivalence is shown of {'the other ' if some_are_shown else ''}{len(others)} of {count}")
    elif others:
        said.append(f"not shown of {'the other ' if some_are_shown else ''}{len(others)} of {count}")
        said += _would_have_been_found(of, others, share)
    if reasons:
        said.append(f"{len(reasons)} of {count} could not be judged: {_some(reasons)}")
    return said


def _some(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return "; ".join(reasons[:_SHOWN]) + more


def _least(share: float) -> int:
    """The least number of blocks whose extremes bound a median with so small a risk on one side."""
    return max(FEWEST_BLOCKS, math.ceil(-math.log2(share)))


def _bounds(of: Condition, each: Evidence) -> tuple[float, float]:
    """Below and above which it is shown, on the scale of the limits."""
    if each.metric in SHARES:
        return -of.threshold, of.threshold
    above = math.log1p(of.threshold)
    if of.larger[each.metric] is None:
        return -above, above
    return math.log1p(-of.threshold) if of.threshold < 1 else -math.inf, above


def _is_bounded(of: Condition, each: Evidence, side: Side) -> bool:
    """Whether there are the limits that it goes by."""
    larger = of.larger[each.metric]
    wanted = [side.low, side.high] if larger is None else [side.low if larger else side.high]
    return all(math.isfinite(limit) for limit in wanted)


def _is_shown(of: Condition, each: Evidence, side: Side) -> bool:
    below, above = _bounds(of, each)
    larger = of.larger[each.metric]
    if larger is None:
        return not (side.low > below and side.high < above)
    return bool(side.low > above) if larger else bool(side.high < below)


def _told(of: Condition, each: Evidence, side: Side) -> str:
    meaning = MEANINGS[each.metric]
    title, change = f"{each.about}, {meaning.title}", _signed(each, float(side.value))
    amount = f"{100 * of.threshold:g} {'points' if each.metric in SHARES else '%'}"
    if of.larger[each.metric] is None:
        return f"{title}: not shown to be equivalent within {amount}, {change}"
    word = meaning.words[0 if (side.value > 0) == meaning.larger_is_better else 1]
    return f"{title}: {word}, {change}, where more than {amount} fails"


def _signed(each: Evidence, at: float) -> str:
    if not math.isfinite(at):
        return "no limit"
    if each.metric in SHARES:
        return percent(at, signed=True).replace("%", "points")
    return percent(math.expm1(at), signed=True) if abs(at) < math.log(1000) else "any change"


def _limits(each: Evidence, side: Side) -> str:
    return f"{_signed(each, float(side.low))} to {_signed(each, float(side.high))}"


def _would_have_been_found(of: Condition, others: Sequence[tuple[Evidence, Side]], share: float) -> list[str]:
    """How large a change would have been shown with a chance of 80 %, of what is least sure: by as many standard errors
    as the limit is away, and those that power takes besides."""
    more = 1.0 + float(normal_quantile(POWER)) / -float(normal_quantile(share))
    found = []
    for each, side in others:
        below, above = _bounds(of, each)
        if of.larger[each.metric]:
            found.append((above + more * float(side.value - side.low), each))
        else:
            found.append((below - more * float(side.high - side.value), each))
    at, each = max(found, key=lambda least: abs(least[0]))
    return [f"a change of {_signed(each, at)} or more would have been, with a chance of about {100 * POWER:g} %"]
