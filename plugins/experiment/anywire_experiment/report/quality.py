"""Answers that were checked, as tables: what they were worth, and what they cost."""

from __future__ import annotations

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.results import Results
from anywire_experiment.report.numbers import NONE, number, valued
from anywire_experiment.report.tables import Table


def quality(results: Results, arms: list[ArmFigures]) -> Table:
    head = ["Arm", "Exercises", "Right", f"Share right ({100 * results.confidence:g} % interval)", "Seconds", "Tokens"]
    return Table(
        "Quality and cost",
        [*head, "Tasks", "Tokens per right answer"],
        [
            [
                each.arm,
                str(found.asked),
                str(found.right),
                f"{valued(found.share, 100)} %",
                number(found.seconds),
                number(found.tokens),
                number(found.tasks),
                NONE if found.tokens_per_right is None else number(found.tokens_per_right),
            ]
            for each in arms
            if (found := each.quality) is not None
        ],
        "A request that failed is not right. Seconds, tokens (of prompts and answers, as far as engines told them) and "
        "tasks that agents were asked for are means over all requests. The interval counts blocks.",
    )


def kinds(arms: list[ArmFigures]) -> Table:
    found = {each.arm: {kind.kind: kind for kind in each.quality.kinds} for each in arms if each.quality is not None}
    names = sorted({name for known in found.values() for name in known})
    return Table(
        "Right by kind of exercise",
        ["Kind", *found],
        [
            [
                name or NONE,
                *(
                    f"{kind.right} of {kind.asked}" if (kind := known.get(name)) is not None else NONE
                    for known in found.values()
                ),
            ]
            for name in (names if len(names) > 1 else ())
        ],
    )


def paired(results: Results, workload: str) -> Table:
    return Table(
        "Paired by exercise",
        ["Baseline", "Arm", "Both right", "Arm alone", "Baseline alone", "Neither"],
        [
            [
                each.baseline,
                each.candidate,
                *(str(count) for count in (each.both, each.candidate_alone, each.baseline_alone, each.neither)),
            ]
            for each in results.paired_answers
            if each.workload == workload
        ],
        "The same exercise of a block goes to every arm. What one alone has right makes the difference.",
        frozenset({1}),
    )
