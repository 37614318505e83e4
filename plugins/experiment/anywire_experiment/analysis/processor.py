"""The processor time that answers took, of the system alone."""

from __future__ import annotations

import numpy as np

from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.record.cells import LOAD, Cell


def outside_the_system(cell: Cell) -> set[str]:
    """The processes of a cell that are not the system's: the load generator, and companions that serve every arm
    alike."""
    return {LOAD, *(name for name, each in cell.processes.items() if each.shared)}


def system_seconds(cell: Cell, workload: str) -> float | None:
    """Processor seconds of the system while a workload was measured; None where they were not counted."""
    used = cell.workloads[workload].cpu_seconds if workload in cell.workloads else {}
    outside = outside_the_system(cell)
    return sum(seconds for name, seconds in used.items() if name not in outside) if used else None


def milliseconds_per(seconds: float | None, answers: int) -> Floats:
    """One number, of an answer; none where nothing was counted, or nothing was answered."""
    return np.array([1e3 * seconds / answers]) if seconds is not None and answers else np.array([])
