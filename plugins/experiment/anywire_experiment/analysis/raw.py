"""A record's raw data, read: what every figure of a report starts from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from anywire_experiment.analysis.arm_figures import StreamShape
from anywire_experiment.analysis.energy import ENERGY, why_no_energy
from anywire_experiment.analysis.measured import FEWEST_BEFORE, Measured
from anywire_experiment.analysis.metrics import MEANINGS, can_have, metrics_of
from anywire_experiment.analysis.sample_rows import read_samples
from anywire_experiment.analysis.stream_arrivals import streams_of
from anywire_experiment.plan.arms import ALONE
from anywire_experiment.plan.metric import OF_REQUESTS, Metric, fewest_samples
from anywire_experiment.record.cells import CELL, Cell, read_cell
from anywire_experiment.record.folder import plan_of
from anywire_experiment.record.manifest import fingerprint
from anywire_experiment.record.storage import RecordError

Block = dict[str, Measured]
"""By workload."""


class RawData:
    """The cells of a record."""

    def __init__(self, folder: Path) -> None:
        """Raises `RecordError` or `ConfigError` when ``folder`` is no record, or one that cannot be read."""
        self.folder = folder
        self.plan = plan_of(folder)
        factors = self.plan.factors
        self.levels = {
            "+".join(labels) or ALONE: dict(zip(factors, labels, strict=True))
            for labels in itertools.product(*([each.label for each in known] for known in factors.values()))
        }
        self.arms = list(self.levels)
        self.cells: list[Cell] = []
        self._measured: dict[tuple[int, str], Block] = {}
        self._shapes: dict[tuple[str, str], StreamShape | None] = {}
        self.computed: dict[tuple[str, ...], object] = {}
        """What has been computed of it once and is needed again, by name."""
        for path in sorted(folder.glob(f"cells/*/*/{CELL}")):
            try:
                self._read(path.parent)
            except (OSError, ValueError, pa.ArrowException, msgspec.DecodeError) as error:
                raise RecordError(f"the cell {path.parent} cannot be read: {error}") from error
        if not self.cells:
            raise RecordError(f"the record {folder} has no cells yet: nothing was measured")
        self.cells.sort(key=lambda each: (each.block, each.order))

    @cached_property
    def fingerprint(self) -> str:
        """One hash for everything that was not computed from something else in the record."""
        return fingerprint(self.folder)

    @property
    def expected(self) -> int:
        """Cells of the plan."""
        return self.plan.blocks * len(self.arms)

    def measured(self, arm: str, workload: str) -> dict[int, Measured]:
        """What was measured in each block whose cell is whole."""
        return {block: found[workload] for (block, of), found in sorted(self._measured.items()) if of == arm}

    def metrics(self, workload: str) -> tuple[Metric, ...]:
        return metrics_of(self.plan, workload)

    def can_have(self, metric: Metric, arm: str) -> bool:
        return can_have(self.plan, metric, self.levels[arm])

    def stream_shape(self, arm: str, workload: str) -> StreamShape | None:
        """How its streams arrived; None without any that could tell."""
        if (arm, workload) not in self._shapes:
            self._shapes[arm, workload] = _shape(self.measured(arm, workload).values())
        return self._shapes[arm, workload]

    def is_burst(self, arm: str, workload: str) -> bool:
        """Whether the tokens of most of its streams came all at once."""
        shape = self.stream_shape(arm, workload)
        return shape is not None and shape.burst

    def why_missing(self, arm: str, workload: str, metric: Metric, block: int) -> str:
        """Why a block of an arm does not count for a metric."""
        cell = next((each for each in self.cells if (each.block, each.arm) == (block, arm)), None)
        if cell is None:
            return f"{arm} did not run"
        if cell.state != "completed":
            return f"the cell of {arm} failed"
        found = self._measured[block, arm][workload]
        if metric == "capacity":
            return f"{arm} was not seen to bear one rate and not to bear another (see the table Saturation)"
        if metric in OF_REQUESTS and found.series(metric).size >= fewest_samples(self.plan.statistic):
            share = f"{100 * found.failed / found.requests:.3g} %"
            return f"{share} of the requests of {arm} failed, so that the {self.plan.statistic} of all lies among them"
        if metric in ENERGY and found.whole.num_rows:
            return why_no_energy(cell)
        if metric == "notice":
            return f"{arm} never lost the agent" if found.fault() else f"{arm} had no fault"
        if metric == "recovery":
            few = f"{arm} gave fewer than {FEWEST_BEFORE} answers before the fault"
            return few if found.fault() else f"{arm} had no fault"
        return f"{arm} has {found.whole.num_rows} whole answers with a {MEANINGS[metric].title}"

    def _read(self, folder: Path) -> None:
        cell = read_cell(folder)
        if cell.arm not in self.levels:
            raise ValueError(f"the plan has no arm {cell.arm!r}")
        self.cells.append(cell)
        if cell.state == "completed":
            samples = read_samples(folder)
            self._measured[cell.block, cell.arm] = {
                name: Measured(cell, samples, name, self.plan.objective, streams=each.stream, search=each.search)
                for name, each in self.plan.workloads.items()
            }


def _shape(blocks: Iterable[Measured]) -> StreamShape | None:
    parts = [streams_of(each.whole) for each in blocks]
    if not any(each.tokens.size for each in parts):
        return None
    tokens, pieces, moments, burst = (np.concatenate(each) for each in zip(*parts, strict=True))
    return StreamShape(
        float(np.median(tokens)), float(np.median(pieces)), float(np.median(moments)), 2 * int(burst.sum()) > burst.size
    )
