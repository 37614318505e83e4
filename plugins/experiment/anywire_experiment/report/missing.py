"""What is missing of a comparison, and whether its verdict depends on what that may have been."""

from __future__ import annotations

from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.survivors import Bounds
from anywire_experiment.analysis.wording import MINUS, meaning_of, percent
from anywire_experiment.report.numbers import NONE
from anywire_experiment.report.tables import Table
from anywire_experiment.statistics import Outcome


def missing(results: Results, workload: str) -> Table:
    """Without rows where nothing failed and no block is missing."""
    found = [
        (each, each.bounds) for each in results.comparisons if each.workload == workload and each.bounds is not None
    ]
    return Table(
        "What is missing",
        [
            "Arm",
            "Metric",
            "Failed, baseline",
            "Failed, arm",
            "Blocks missing",
            "Change, at least",
            "At most",
            "Verdict",
        ],
        [
            [
                each.candidate,
                meaning_of(each.metric).title,
                *(NONE if each.shares else percent(of) for of in (bounds.failed_baseline, bounds.failed_candidate)),
                f"{bounds.missing} of {bounds.blocks}",
                *_ends(each, bounds),
                _held(each),
            ]
            for each, bounds in found
        ],
        f"Failed: the share of requests without an answer; {NONE}: of shares of all requests, which count them. At "
        "least and at most: the change in blocks that both arms have, if the failed requests of one had been as fast "
        "as the fastest answer and those of the other as slow as their time allowed, and the other way round. A "
        "missing block may have had any ratio. A verdict is given only where it is the same at both ends.",
        frozenset({1, 7}),
    )


def _ends(each: ComparisonFigures, bounds: Bounds) -> list[str]:
    if each.shares is not None:
        return [f"{100 * at:+.1f} points".replace("-", MINUS) for at in (bounds.low, bounds.high)]
    return [_change(at) for at in (bounds.low, bounds.high)]


def _change(ratio: float) -> str:
    return percent(ratio - 1.0, signed=True) if 1 / 3 < ratio < 3 else f"{ratio:.3g} times"


def _held(each: ComparisonFigures) -> str:
    if each.verdict is None:
        return "none: it would depend on it"
    shown = each.verdict.outcome is not Outcome.NOT_ENOUGH_DATA
    return f"{each.verdict.words} at both ends" if shown else f"none: {each.verdict.words}"
