"""What the processes of an arm cost: judged as any other metric, without what serves all arms alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.experiment.fabricated import fabricate, plan_of

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.resources import SYSTEM
from anywire_experiment.analysis.results import Results
from anywire_experiment.record.cells import Cell, ProcessUse, read_cell, write_cell

TREE = plan_of(workloads={"one": {"requests": 100}}, metrics=["latency", "cpu_per_request"])


def analysed(folder: Path, change: Callable[[Cell], None]) -> Results:
    fabricate(folder, TREE)
    for path in sorted(folder.glob("cells/*/*/cell.json")):
        cell = read_cell(path.parent)
        change(cell)
        write_cell(path.parent, cell)
    return analyse(folder)


def with_an_engine(cell: Cell, *, shared: bool) -> None:
    """An engine that takes 0.5 s; an orchestrator that takes 0.1 s over zeromq, 0.2 s over dds, more or less."""
    run = cell.workloads["one"]
    noise = 1 + 0.01 * (cell.block % 5)
    own = (0.2 if cell.arm == "dds" else 0.1) * noise
    run.cpu_seconds = {"orchestrator": own, "engine": 0.5, "load": 3.0}
    cell.processes["engine"] = ProcessUse([0], 0.5, 10_000_000, 1, shared=shared)


@pytest.mark.parametrize(("shared", "ratio", "ms"), [(True, 2.0, 1.0), (False, 7 / 6, 6.0)])
def test_processor_time_is_of_the_system_and_judged(tmp_path: Path, shared: bool, ratio: float, ms: float) -> None:
    results = analysed(tmp_path, lambda cell: with_an_engine(cell, shared=shared))
    (found,) = (each for each in results.comparisons if each.metric == "cpu_per_request")
    assert found.comparison is not None
    assert found.comparison.ratio.value == pytest.approx(ratio, rel=0.02)
    assert found.verdict is not None
    assert "dearer in processor time" in found.sentence
    by_arm = {each.arm: each for each in results.figures}
    typical = by_arm["zeromq"].metrics["cpu_per_request"].typical
    assert typical is not None
    assert typical.value == pytest.approx(ms, rel=0.05)
    assert by_arm["zeromq"].cpu_us[SYSTEM] == pytest.approx(1e3 * ms, rel=0.05)
    assert by_arm["zeromq"].cpu_us["engine"] == pytest.approx(5e3)


def test_an_arm_without_a_process_of_its_own_costs_nothing_and_the_difference_is_told(tmp_path: Path) -> None:
    def change(cell: Cell) -> None:
        with_an_engine(cell, shared=True)
        if cell.arm == "zeromq":
            del cell.workloads["one"].cpu_seconds["orchestrator"]

    results = analysed(tmp_path, change)
    (found,) = (each for each in results.comparisons if each.metric == "cpu_per_request")
    assert found.comparison is None
    assert found.difference is not None
    assert found.difference.value == pytest.approx(2.0, rel=0.05)


def test_a_record_that_counted_nothing_has_no_such_metric(tmp_path: Path) -> None:
    results = analysed(tmp_path, lambda cell: cell.workloads["one"].cpu_seconds.clear())
    (found,) = (each for each in results.comparisons if each.metric == "cpu_per_request")
    assert found.comparison is None
    assert found.verdict is None
    assert msgspec.json.encode(found)
