"""Two records are verified before they are compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.experiment.fabricated import Truth, fabricate, finished, plan_of
from typer.testing import CliRunner

from anywire.errors import ConfigError
from anywire_experiment import outcome
from anywire_experiment.cli import app
from anywire_experiment.record.manifest import FORMAT, MANIFEST, seal
from anywire_experiment.record.storage import RecordError

TREE = plan_of(workloads={"one-client": {"requests": 60}}, metrics=["latency"])

pytestmark = pytest.mark.usefixtures("computed_once")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sealed records of one plan with other seeds, which agree, in one folder."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate("ab", start=1):
        finished(fabricate(folder / name, TREE | {"seed": seed}, {"dds": Truth(factor=1.5)}))
    return folder


@pytest.fixture
def records(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    copies = shutil.copytree(made, tmp_path / "records")
    return copies / "a", copies / "b"


def edited(folder: Path) -> None:
    """Samples of one cell that make it a thousand times as slow."""
    cell = folder / "cells/b003/dds/samples.parquet"
    table = pq.read_table(cell)
    at = table.schema.get_field_index("done_ns")
    done = pa.array([each + 10**9 for each in table["done_ns"].to_pylist()])
    pq.write_table(table.set_column(at, table.schema.field(at), done), cell)


def test_records_as_they_were_sealed_are_compared(records: tuple[Path, Path]) -> None:
    said = outcome.compared(*records)
    assert "1 of 1 verdicts are the same in both." in said
    assert "A: it is not signed: nothing tells who has sealed it" in said
    assert "was changed" not in said


@pytest.mark.parametrize("which", [0, 1])
def test_edited_samples_are_refused(records: tuple[Path, Path], which: int) -> None:
    edited(records[which])
    with pytest.raises(RecordError) as caught:
        outcome.compared(*records)
    assert f"{records[which]} is not used" in str(caught.value)
    assert "cells/b003/dds/samples.parquet: changed since it was sealed" in str(caught.value)
    with pytest.raises(RecordError, match="changed since it was sealed"):
        outcome.check(records[which])


def test_figures_that_do_not_follow_are_refused_though_they_are_sealed(records: tuple[Path, Path]) -> None:
    path = records[0] / "results.json"
    told = json.loads(path.read_bytes())
    told["comparisons"][0]["verdict"]["outcome"] = "equivalent"
    path.write_text(json.dumps(told))
    seal(records[0])
    with pytest.raises(RecordError, match=r"verdict\.outcome: it says 'equivalent', the raw data give 'worse'"):
        outcome.compared(*records)


def test_a_record_that_was_never_sealed_is_compared_and_told_as_such(records: tuple[Path, Path]) -> None:
    (records[1] / MANIFEST).unlink()
    said = outcome.compared(*records)
    assert "B is not sealed, so nothing tells whether it was changed" in said
    assert "1 of 1 verdicts are the same in both." in said


def test_a_record_of_an_older_format_is_computed_anew(records: tuple[Path, Path]) -> None:
    path = records[0] / "results.json"
    path.write_text(json.dumps({"format": 2, "comparisons": []}))
    seal(records[0])
    manifest = json.loads((records[0] / MANIFEST).read_bytes())
    (records[0] / MANIFEST).write_text(json.dumps(manifest | {"format": 2}))
    said = outcome.compared(*records)
    assert f"A has format 2 and not {FORMAT}: its files are as sealed, its figures computed anew." in said
    assert "1 of 1 verdicts are the same in both." in said
    edited(records[0])
    with pytest.raises(RecordError, match="changed since it was sealed"):
        outcome.compared(*records)


def test_a_record_beside_itself_is_told_as_that_and_not_compared(records: tuple[Path, Path], tmp_path: Path) -> None:
    sealed = records[0]
    copy = shutil.copytree(sealed, tmp_path / "copy")
    for other in (sealed, copy):
        done = CliRunner().invoke(app, ["compare", str(sealed), str(other), "--fail-if", "slower > 5 %"])
        assert done.exit_code == 2
        said = " ".join(done.output.replace("│", " ").split())
        assert "are the same record, SHA-256 of the manifest" in said
        assert "nothing is compared; give two records" in said
        assert "of different times" not in said
    edited(copy)
    with pytest.raises(RecordError, match="changed since it was sealed"):
        outcome.compared(sealed, copy)
    (sealed / MANIFEST).unlink()
    with pytest.raises(ConfigError, match="are the same record, the same folder: nothing is compared"):
        outcome.compared(sealed, sealed)
