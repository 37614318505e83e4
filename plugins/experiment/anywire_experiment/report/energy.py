"""What answers cost in energy, as a table."""

from __future__ import annotations

from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.report.numbers import NONE, number
from anywire_experiment.report.tables import Table


def energy(arms: list[ArmFigures]) -> Table:
    """Without rows where nothing was counted."""
    return Table(
        "Energy",
        ["Arm", "Per answer", "Per token", "Of which", "Power", "Idle before"],
        [
            [
                each.arm,
                f"{number(sum(found.joules.values()))} J",
                NONE if found.joules_per_token is None else f"{number(found.joules_per_token)} J",
                ", ".join(f"{name} {number(joules)} J" for name, joules in found.joules.items()),
                f"{number(found.watts)} W",
                NONE if found.idle_watts is None else f"{number(found.idle_watts)} W",
            ]
            for each in arms
            if (found := each.energy) is not None
        ],
        "Medians over blocks. Counted is what the named parts of the machine took while the workload was measured, "
        "whatever ran on them: the load generator, other programs, and what they take when nothing runs, which is told "
        "as Idle and not subtracted. Failed requests have no share of their own: what they took is with the answers.",
        frozenset({3}),
    )
