"""The tables of one workload, in their order, and those of the whole experiment."""

from __future__ import annotations

from anywire_experiment.analysis.results import Results
from anywire_experiment.report import (
    design,
    energy,
    faults,
    missing,
    objective,
    quality,
    run_order,
    saturation,
    tables,
    traffic,
)


def of_workload(results: Results, workload: str) -> list[tables.Table]:
    """Those that have rows: what was compared and how far that holds, then what was measured of each arm, then what
    it cost and how it was asked."""
    arms = [each for each in results.figures if each.workload == workload]
    comparisons = [each for each in results.comparisons if each.workload == workload]
    made = [tables.compared(results, comparisons), missing.missing(results, workload)]
    made += [run_order.table(results, workload), design.places(results, workload)]
    made += [design.interactions(results, workload)]
    made += [quality.quality(results, arms), quality.kinds(arms), quality.paired(results, workload)]
    made += [objective.objective(results, arms), tables.figures(results, arms), tables.percentiles(arms)]
    made += [saturation.table(arms), tables.failures(arms), faults.faults(arms), traffic.table(arms)]
    made += [tables.served(arms)]
    made += [tables.counters(arms), tables.stages(arms), tables.resources(arms), tables.wires(arms)]
    made += [energy.energy(arms), design.lateness(results, arms), design.steadiness(arms)]
    return [each for each in made if each.rows]


def overall(results: Results) -> list[tables.Table]:
    return [each for each in (tables.cells(results), tables.same_answers(results)) if each.rows]
