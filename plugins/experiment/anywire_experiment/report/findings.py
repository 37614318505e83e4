"""What is said of a workload first: its comparisons in sentences, the most telling ones unfolded."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.wording import place
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
    """Failures only where there were any."""
    given = [each for each in results.comparisons if each.workload == workload]
    given = [each for each in given if each.metric != "failures" or _failed(results, each)]
    most = min(MOST_UNFOLDED, max(FEWEST_UNFOLDED, ON_PAGE // len(results.workloads)))
    # Between as many as that, what is shown comes first, and of that what is largest.
    first = {id(each) for each in sorted(given, key=_telling)[:most]}
    told: set[tuple[str, str]] = set()
    unfolded, folded, rest = [], [], Counter[str]()
    for each in given:
        if id(each) in first:
            unfolded.append(_finding(each, told))
    for each in given:
        if id(each) not in first:
            folded.append(_finding(each, told))
            rest[each.verdict.words if each.verdict is not None else NOT_JUDGED] += 1
    said = ", ".join(f"{words} {count}" for words, count in rest.most_common())
    return Findings(unfolded, folded, f"{len(folded)} more: {said}" if folded else "")


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


def _finding(each: ComparisonFigures, told: set[tuple[str, str]]) -> Finding:
    # A caution holds for a pair of arms; once per pair is enough.
    new = [caution for caution in each.caution if (caution, each.candidate) not in told]
    told.update((caution, each.candidate) for caution in new)
    outcome = f"{SIGNS[each.verdict.outcome]} {each.verdict.words}" if each.verdict else f"· {NOT_JUDGED}"
    return Finding(outcome, place(each.metric, each.levels), f"{each.sentence}.", new)


def _failed(results: Results, each: ComparisonFigures) -> bool:
    arms = (each.baseline, each.candidate)
    return any(found.failed for found in results.figures if found.workload == each.workload and found.arm in arms)
