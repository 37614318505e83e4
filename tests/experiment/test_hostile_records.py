"""Records of strangers do no harm: nothing outside of them is written, and what is wrong is told in a sentence."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from anywire.errors import ConfigError
from anywire_experiment import outcome
from anywire_experiment.cli import app
from anywire_experiment.record.compact import publish
from anywire_experiment.record.manifest import DERIVED, MANIFEST, RESULTS, seal
from anywire_experiment.record.storage import RecordError

pytestmark = pytest.mark.usefixtures("computed_once")


@pytest.mark.parametrize("names", [DERIVED, tuple(f".{each}.new" for each in DERIVED)])
def test_a_report_is_written_over_links_and_not_through_them(
    record: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Also of a record without a seal, which says of nothing that it is too much."""
    (record / MANIFEST).unlink()
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    for name in names:
        (record / name).unlink(missing_ok=True)
        (record / name).symlink_to(mine)
    outcome.conclude_again(record)
    assert mine.read_text() == "precious"
    assert all((record / name).is_file() and not (record / name).is_symlink() for name in DERIVED)
    assert not any((record / f".{name}.new").is_symlink() for name in DERIVED)


@pytest.mark.parametrize("name", ["report.html2", "results.json.bak", "report.html: x"])
def test_a_file_with_a_name_like_the_report_s_is_not_sealed_with_it(record: Path, name: str) -> None:
    (record / name).write_text("x")
    with pytest.raises(RecordError, match="not in the manifest"):
        outcome.conclude_again(record)


def test_results_that_nobody_can_read_are_told(record: Path) -> None:
    (record / RESULTS).write_bytes(b"[" * 200_000)
    seal(record)
    assert any(each.startswith(f"{RESULTS}: cannot be read") for each in outcome.faults(record))


@pytest.mark.parametrize("name", ["priority", "intended_ns", "workload"])
def test_samples_without_what_every_request_has_are_told(record: Path, name: str) -> None:
    path = next(record.glob("cells/*/*/samples.parquet"))
    table = pq.read_table(path)
    at = table.column_names.index(name)
    pq.write_table(table.set_column(at, table.field(at), pa.nulls(table.num_rows, table.field(at).type)), path)
    seal(record)
    with pytest.raises(RecordError, match=f"has rows without {name}"):
        outcome.faults(record)


def test_an_author_who_is_not_named_is_not_anybody(record: Path) -> None:
    """As where a script's variable is not set."""
    found = CliRunner().invoke(app, ["verify", str(record), "--author", ""])
    assert found.exit_code != 0
    assert isinstance(found.exception, ConfigError)
    assert "neither a fingerprint" in str(found.exception)


@pytest.mark.parametrize("command", [("publish",), ("sign", "--key", "key")])
def test_a_published_file_where_a_folder_is_needed_is_told_as_one(
    record: Path, tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["key", "--key", "key"]).exit_code == 0
    publish(record, tmp_path / "x.record")
    found = CliRunner().invoke(app, [command[0], "x.record", *command[1:]])
    assert "x.record is a file: `anywire experiment unpack` makes a folder" in str(found.exception)


def test_a_record_that_is_not_there_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no record"):
        outcome.verified(tmp_path / "nowhere")


def test_a_published_file_may_have_any_name(record: Path, tmp_path: Path) -> None:
    for name in (".record", "a.record.record", "x"):
        publish(record, tmp_path / name)
        assert outcome.faults(tmp_path / name) == []
