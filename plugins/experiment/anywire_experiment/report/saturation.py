"""The rates that arms bear, in a report."""

from __future__ import annotations

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.report.numbers import NONE, valued
from anywire_experiment.report.tables import Table


def table(arms: list[ArmFigures]) -> Table:
    return Table(
        "Saturation",
        ["Arm", "Borne (requests/s)", "Found", "All rates borne", "None borne", "Generator's limit", "Steps"],
        [
            [
                each.arm,
                valued(each.metrics["capacity"].typical) if "capacity" in each.metrics else NONE,
                str(found.found),
                str(found.too_low),
                str(found.too_high),
                str(found.generators),
                str(found.steps),
            ]
            for each in arms
            if (found := each.search) is not None
        ],
        "Borne: the middle of the highest rate that was borne and the lowest that was not, of each block; the typical "
        "value of the blocks. Found: blocks in which the plan's rates enclose it. All rates borne: blocks in which "
        "even the highest rate was (raise `high`); none: not even the lowest one was (lower `low`); generator's limit: "
        "the load generator sent too late itself (give it cores of its own). These three tell no value. A rate is "
        "borne while the end of its step is answered no later than at the lowest rate, but for half of `precision` of "
        "the step, and few enough requests fail.",
    )
