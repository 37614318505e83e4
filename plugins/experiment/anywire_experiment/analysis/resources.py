"""What the processes of an arm used: processor time, memory, bytes on the wire."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.processor import outside_the_system
from anywire_experiment.record.cells import Cell

SYSTEM = "the system"
"""All processes but the load generator and companions that serve every arm alike: orchestrator, agents, the other
companions, or another system's."""


class Resources(NamedTuple):
    """Medians over blocks, by process: µs of processor time per whole answer, and the most memory in bytes.
    ``wire_bytes`` are per whole answer, None when they were not counted."""

    cpu_us: dict[str, float]
    max_rss_bytes: dict[str, int]
    wire_bytes: float | None


def resources(cells: Sequence[Cell], blocks: Mapping[int, Measured], workload: str) -> Resources:
    """Of the whole ``cells`` of an arm that ran ``workload``, which were measured as ``blocks``."""
    cpu: dict[str, list[float]] = {}
    rss: dict[str, list[float]] = {}
    wire: list[float] = []
    for cell in cells:
        beside = outside_the_system(cell)
        run, answers = cell.workloads[workload], blocks[cell.block].whole.num_rows
        if answers:
            for process, seconds in _with_sum(run.cpu_seconds, beside).items():
                cpu.setdefault(process, []).append(seconds / answers * 1e6)
            if run.wire_bytes is not None:
                wire.append(run.wire_bytes / answers)
        most_memory = {name: each.max_rss_bytes for name, each in cell.processes.items()}
        for process, most in _with_sum(most_memory, beside).items():
            rss.setdefault(process, []).append(most)
    return Resources(
        medians(dict(sorted(cpu.items()))),
        {name: int(value) for name, value in medians(dict(sorted(rss.items()))).items()},
        float(np.median(wire)) if wire else None,
    )


def medians(of: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: float(np.median(each)) for name, each in of.items()}


def _with_sum(used: Mapping[str, float], beside: Collection[str]) -> dict[str, float]:
    return {**used, SYSTEM: sum(each for name, each in used.items() if name not in beside)} if used else {}
