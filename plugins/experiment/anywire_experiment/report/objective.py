"""What came of requests under the plan's objective, as a table."""

from __future__ import annotations

from anywire_experiment.analysis.arm_figures import ArmFigures, Valued
from anywire_experiment.analysis.results import Results
from anywire_experiment.report.numbers import NONE, valued
from anywire_experiment.report.tables import Table

_PARTS = {
    "failed": "failed",
    "deadline": "after their deadline",
    "ttft": "first token late",
    "itl": "tokens slow",
    "latency": "answer late",
}


def objective(results: Results, arms: list[ArmFigures]) -> Table:
    return Table(
        "Objective",
        ["Arm", "Requests", "Held it", f"Share ({100 * results.confidence:g} % interval)", "Per second", "Did not"],
        [
            [
                each.arm,
                str(found.requests),
                str(found.met),
                f"{valued(Valued(found.share, found.interval), 100)} %",
                _rate(each),
                ", ".join(f"{count} {_PARTS[part]}" for part, count in found.missed.items()) or NONE,
            ]
            for each in arms
            if (found := each.objective) is not None
        ],
        f"Objective: {results.objective}. A request that failed has not held it; one may miss several parts. Requests "
        "that their clients gave up are not counted. The interval of the share counts blocks. Per second: of the "
        "time in which requests came, where it is among the metrics.",
        frozenset({5}),
    )


def _rate(arm: ArmFigures) -> str:
    found = arm.metrics.get("goodput")
    return f"{valued(found.typical)} /s" if found is not None and found.typical is not None else NONE
