"""The energy that answers took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa

from anywire_experiment.analysis.sample_rows import Floats
from anywire_experiment.plan.metric import Metric
from anywire_experiment.record.cells import Cell

ENERGY: frozenset[Metric] = frozenset({"energy_per_request", "energy_per_token"})


class Answered(Protocol):
    """What was measured of a workload in a block."""

    whole: pa.Table

    @property
    def tokens(self) -> int: ...


class EnergyFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """The energy of one arm under one workload, medians over blocks. ``joules`` is that of one answer, by source;
    ``watts`` the power of the machine while it was measured, ``idle_watts`` the same before the run began. What failed
    requests took is counted with the answers. ``joules_per_token`` is None where there were no tokens."""

    joules: dict[str, float]
    joules_per_token: float | None
    watts: float
    idle_watts: float | None


def joules_per(joules: Mapping[str, float], count: int) -> Floats:
    """One number; none where no energy was counted, or nothing to divide it by."""
    return np.array([sum(joules.values()) / count]) if joules and count and sum(joules.values()) > 0 else np.array([])


def why_no_energy(cell: Cell) -> str:
    """Why a cell has no energy."""
    if cell.energy is None:
        return "the record is from before energy was measured"
    if cell.energy.sources:
        return f"the counters of energy ({', '.join(cell.energy.sources)}) did not move"
    return f"energy was not measurable there ({'; '.join(cell.energy.missing)})"


def energy_of(cells: Sequence[Cell], blocks: Mapping[int, Answered], workload: str) -> EnergyFigures | None:
    """Of the whole ``cells`` of an arm, which were measured as ``blocks``; None where nothing was counted."""
    answers = {block: each.whole.num_rows for block, each in blocks.items()}
    counted = [
        (each, run)
        for each in cells
        if sum((run := each.workloads[workload]).joules.values()) > 0
        and answers[each.block]
        and run.ended_ns > run.began_ns
    ]
    if not counted:
        return None
    names = dict.fromkeys(name for _, run in counted for name in run.joules)
    per_token = [sum(run.joules.values()) / tokens for cell, run in counted if (tokens := blocks[cell.block].tokens)]
    idle = [sum(cell.energy.idle_watts.values()) for cell, _ in counted if cell.energy and cell.energy.idle_watts]
    return EnergyFigures(
        joules={
            name: _median([run.joules.get(name, 0.0) / answers[cell.block] for cell, run in counted]) for name in names
        },
        joules_per_token=_median(per_token) if per_token else None,
        watts=_median([sum(run.joules.values()) / ((run.ended_ns - run.began_ns) / 1e9) for _, run in counted]),
        idle_watts=_median(idle) if idle else None,
    )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def cautions_of_energy(cells: Sequence[Cell]) -> list[str]:
    """What a reader must know of it."""
    counted = {tuple(sorted(run.joules)) for each in cells for run in each.workloads.values() if run.joules}
    if len(counted) < 2:
        return []
    told = " and ".join(", ".join(each) for each in sorted(counted))
    return [f"energy was not counted of the same parts in all cells ({told}): figures of energy are not comparable"]
