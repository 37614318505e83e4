"""What is said of a workload first: its comparisons in sentences, the most telling ones unfolded."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from anywire_experiment.analysis.headline import few
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.wording import meaning_of, place
from anywire_experiment.statistics import Outcome

MOST_UNFOLDED, FEWEST_UNFOLDED, ON_PAGE = 12, 3, 60
"""Findings of a workload, and of all, that a reader sees without unfolding any."""
SIGNS = {
    Outcome.BETTER: "▲",
    Outcome.WORSE: "▼",
    Outcome.EQUIVALENT: "≈",
    Outcome.NOT_ENOUGH_DATA: "?",
}
NOT_JUDGED = "not judged"


class Finding(NamedTuple):
    """A comparison in words: ``outcome`` with a sign, what it is ``about``, and what speaks against it."""

    outcome: str
    about: str
    text: str
    but: list[str]


class Findings(NamedTuple):
    """Of a workload, in the order of the plan; ``folded`` are the others, and ``rest`` says what they are."""

    unfolded: list[Finding]
    folded: list[Finding]
    rest: str


def findings(results: Results, workload: str) -> Findings:
    """Failures only where there were any. What is missing alike of all comparisons of the experiment is said with its
    first workload, and not again."""
    shown = [each for each in results.comparisons if each.metric != "failures" or _failed(results, each)]
    if (whole := _alike(shown)) and len(whole) == 1 and len(shown) > 1:
        if workload != shown[0].workload:
            return Findings([], [], "")
        cautions = list(dict.fromkeys(caution for each in shown for caution in each.caution))
        if (more := len(cautions) - MOST_UNFOLDED) > 0:
            cautions[MOST_UNFOLDED:] = [f"there are {more} more reservations, which results.json has"]
        everything = Finding(f"· {NOT_JUDGED}", f"all {len(shown)} comparisons", f"{shown[0].reason}.", cautions)
        return Findings([everything], [], "")
    given = _alike([each for each in shown if each.workload == workload])
    most = min(MOST_UNFOLDED, max(FEWEST_UNFOLDED, ON_PAGE // len(results.workloads)))
    # Between as many as that, what is shown comes first, and of that what is largest.
    first = {id(each) for each in sorted(given, key=lambda each: _telling(each[0]))[:most]}
    told: set[tuple[str, str]] = set()
    unfolded, folded, rest = [], [], Counter[str]()
    for each in given:
        if id(each) in first:
            unfolded.append(_finding(each, told))
    for each in given:
        if id(each) not in first:
            folded.append(_finding(each, told))
            rest[each[0].verdict.words if each[0].verdict is not None else NOT_JUDGED] += len(each)
    said = ", ".join(f"{words} {count}" for words, count in rest.most_common())
    return Findings(unfolded, folded, f"{rest.total()} more: {said}" if folded else "")


def _alike(given: list[ComparisonFigures]) -> list[list[ComparisonFigures]]:
    """Each by itself, but together those of which nothing is known but one and the same reason."""
    made: list[list[ComparisonFigures]] = []
    by_reason: dict[str, list[ComparisonFigures]] = {}
    for each in given:
        # What was seen of one would be in its sentence too.
        if not each.reason or not each.sentence.endswith(f": {each.reason}"):
            made.append([each])
        elif each.reason in by_reason:
            by_reason[each.reason].append(each)
        else:
            made.append(by_reason.setdefault(each.reason, [each]))
    return made


def _telling(each: ComparisonFigures) -> tuple[int, float]:
    if each.verdict is None:
        return (2 if each.comparison is not None else 4), 0.0
    if each.verdict.outcome in (Outcome.BETTER, Outcome.WORSE):
        return 0, -_apart(each)
    return (1 if each.verdict.outcome is Outcome.EQUIVALENT else 3), 0.0


def _apart(each: ComparisonFigures) -> float:
    if each.comparison is not None:
        return abs(math.log(each.comparison.ratio.value))
    return abs(each.shares.difference.value) if each.shares is not None else 0.0


def _finding(found: list[ComparisonFigures], told: set[tuple[str, str]]) -> Finding:
    if len(found) > 1:
        titles = dict.fromkeys(meaning_of(each.metric).title for each in found)
        arms = few(list(dict.fromkeys(each.candidate for each in found)))
        cautions = dict.fromkeys(caution for each in found for caution in _new_cautions(each, told))
        about = f"{len(found)} comparisons, {', '.join(titles)} of {arms}"
        return Finding(f"· {NOT_JUDGED}", about, f"{found[0].reason}.", list(cautions))
    (each,) = found
    new = _new_cautions(each, told)
    outcome = f"{SIGNS[each.verdict.outcome]} {each.verdict.words}" if each.verdict else f"· {NOT_JUDGED}"
    return Finding(outcome, place(each.metric, each.levels), f"{each.sentence}.", new)


def _new_cautions(each: ComparisonFigures, told: set[tuple[str, str]]) -> list[str]:
    """A caution holds for a pair of arms; once per pair is enough."""
    new = [caution for caution in each.caution if (caution, each.candidate) not in told]
    told.update((caution, each.candidate) for caution in new)
    return new


def _failed(results: Results, each: ComparisonFigures) -> bool:
    arms = (each.baseline, each.candidate)
    return any(found.failed for found in results.figures if found.workload == each.workload and found.arm in arms)
