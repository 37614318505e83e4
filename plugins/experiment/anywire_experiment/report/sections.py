"""The tables of one workload, in their order."""

from __future__ import annotations

from anywire_experiment.analysis.results import Results
from anywire_experiment.report import design, energy, faults, objective, quality, run_order, saturation, tables, traffic


def of_workload(results: Results, workload: str) -> list[tables.Table]:
    """Those that have rows."""
    arms = [each for each in results.figures if each.workload == workload]
    comparisons = [each for each in results.comparisons if each.workload == workload]
    made = [tables.compared(results, comparisons)]
    made += [quality.quality(results, arms), quality.kinds(arms), quality.paired(results, workload)]
    made += [objective.objective(results, arms)]
    made += [tables.figures(results, arms), tables.percentiles(arms), tables.failures(arms)]
    made += [run_order.table(comparisons), saturation.table(arms)]
    made += [traffic.table(arms), tables.served(arms), faults.faults(arms), tables.counters(arms)]
    made += [tables.stages(arms), tables.resources(arms), tables.wires(arms), energy.energy(arms)]
    made += design.of_workload(results, workload, arms)
    return [each for each in made if each.rows]
