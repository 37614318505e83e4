"""A record as tables: what is in them is what the record has, and every column is described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.experiment.fabricated import Truth, fabricate, finished, plan_of

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.frames import NAMES, Tables, load
from anywire_experiment.frames.schema import SCHEMAS, schema_of
from anywire_experiment.record.storage import RecordError

TREE = plan_of(
    blocks=6,
    factors={"transport": ["zeromq", "dds"], "selector": ["random", "round_robin"]},
    workloads={"one": {"requests": 60}, "streams": {"requests": 40, "stream": True}},
    metrics=["latency", "failures"],
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    truths = {"dds": Truth(factor=1.5, failing=0.05, broken=frozenset({2}))}
    return finished(fabricate(tmp_path_factory.mktemp("frames") / "record", TREE, truths))


@pytest.fixture(scope="module")
def tables(record: Path) -> Tables:
    return load(record)


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_described_and_no_other_is_there(tables: Tables, name: str) -> None:
    table = getattr(tables, name)
    assert table.schema.equals(schema_of(name, ["transport", "selector"]), check_metadata=True)
    assert table.num_rows > 0
    names = [each.name for each in SCHEMAS[name]]
    assert len(set(names)) == len(names)
    assert [each.name for each in SCHEMAS[name] if not each.meaning] == []


def test_requests_are_those_of_all_whole_cells(record: Path, tables: Tables) -> None:
    table = tables.requests
    whole = [path for path in record.glob("cells/*/*") if not ("b002" in str(path) and "dds" in path.name)]
    assert table.num_rows == sum(pq.read_metadata(path / "samples.parquet").num_rows for path in whole)
    assert set(table["level.transport"].to_pylist()) == {"zeromq", "dds"}
    failed = table.filter(pc.not_equal(table["outcome"], "ok"))
    assert failed.num_rows > 0
    assert failed["latency_ms"].null_count == failed.num_rows
    assert set(table["late_ms"].to_pylist()) == {0.001}
    first = table.slice(0, 1).to_pylist()[0]
    assert first["latency_ms"] == pytest.approx((first["done_ns"] - first["intended_ns"]) / 1e6)


def test_a_failed_cell_is_told_and_has_its_reason(tables: Tables) -> None:
    table = tables.cells
    broken = table.filter(pc.equal(table["state"], "failed")).to_pylist()
    assert {(each["block"], each["arm"]) for each in broken} == {(2, "dds+random"), (2, "dds+round_robin")}
    assert all("never ready" in each["reason"] for each in broken)
    assert table.num_rows == 6 * 4 * 2
    assert table["joules"].null_count == table.num_rows


def test_figures_and_comparisons_are_those_of_the_results(record: Path, tables: Tables) -> None:
    results = analyse(record)
    known = {(each.workload, each.arm, name): found for each in results.figures for name, found in each.metrics.items()}
    assert tables.figures.num_rows == len(known)
    for row in tables.figures.to_pylist():
        found = known[row["workload"], row["arm"], row["metric"]]
        assert row["typical"] == (found.typical.value if found.typical else None)
        assert row["blocks"] == len(found.values)
    assert tables.blocks.num_rows == sum(len(each.values) for each in known.values())
    assert tables.comparisons.num_rows == len(results.comparisons)
    for row, each in zip(tables.comparisons.to_pylist(), results.comparisons, strict=True):
        assert (row["candidate"], row["sentence"]) == (each.candidate, each.sentence)
        assert row["ratio"] == (each.comparison.ratio.value if each.comparison else None)


def test_pandas_and_polars_get_the_same(tables: Tables) -> None:
    pytest.importorskip("pandas", reason="missing: pandas")
    pytest.importorskip("polars", reason="missing: polars")
    pandas, polars = tables.pandas(), tables.polars()
    for name in NAMES:
        rows = getattr(tables, name).num_rows
        assert len(getattr(pandas, name)) == getattr(polars, name).height == rows
        assert list(getattr(pandas, name).columns) == getattr(polars, name).columns
    measured = pandas.requests[pandas.requests["phase"] == "measured"]
    medians = measured.groupby(["workload", "arm"])["latency_ms"].median()
    assert medians["one", "dds+random"] == pytest.approx(1.5 * medians["one", "zeromq+random"], rel=0.1)
    assert polars.requests["latency_ms"].null_count() == pc.sum(pc.is_null(tables.requests["latency_ms"])).as_py()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_without_them_it_says_what_to_install(record: Path, library: str) -> None:
    code = (
        f"import sys\n"
        f"from anywire_experiment.frames import load\n"
        f"tables = load({str(record)!r})\n"
        f"sys.modules[{library!r}] = None\n"
        f"try: tables.{library}()\n"
        "except Exception as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == f"{library} is not installed: pip install anywire-experiment[{library}]\n"


def test_a_record_that_was_edited_is_refused(tmp_path: Path) -> None:
    folder = finished(fabricate(tmp_path, plan_of(blocks=2)))
    path = folder / "cells/b001/dds/samples.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(RecordError, match=r"cells/b001/dds/samples\.parquet: changed since it was sealed"):
        load(folder)


def test_a_record_without_a_whole_cell_has_empty_requests(tmp_path: Path) -> None:
    broken = Truth(broken=frozenset({1}))
    tables = load(fabricate(tmp_path, plan_of(blocks=1), {"dds": broken, "zeromq": broken}))
    assert tables.requests.num_rows == 0
    assert isinstance(tables.requests, pa.Table)
    assert tables.cells.num_rows == 2
