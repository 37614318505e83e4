"""A record in one file: small, complete, and refused when it was changed."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of

from anywire.errors import ConfigError
from anywire_experiment import outcome, report
from anywire_experiment.exports.export import export
from anywire_experiment.frames import load
from anywire_experiment.outcome import verification
from anywire_experiment.record import compact, figures
from anywire_experiment.record.compact import MAGIC, opened, publish, restore
from anywire_experiment.record.manifest import DERIVED, MANIFEST, differences, seal
from anywire_experiment.record.precision import measurable
from anywire_experiment.record.storage import RecordError

TREE = plan_of(blocks=6, workloads={"one-client": {"requests": 60}, "streams": {"requests": 20, "stream": True}})

pytestmark = pytest.mark.usefixtures("computed_once")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sealed, with times as a run keeps them."""
    folder = fabricate(tmp_path_factory.mktemp("made") / "fabricated", TREE, {"dds": Truth(factor=1.5, failing=0.05)})
    for path in folder.glob("cells/*/*/samples.parquet"):
        pq.write_table(measurable(pq.read_table(path)), path, compression="zstd")
    report.write(folder)
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def published(record: Path) -> Path:
    path = record.parent / "fabricated.record"
    publish(record, path)
    return path


def test_it_is_a_tenth_of_the_record(record: Path, published: Path) -> None:
    whole = sum(each.stat().st_size for each in record.rglob("*") if each.is_file())
    assert published.stat().st_size < whole / 10


def test_it_verifies_and_every_file_comes_out_byte_for_byte(record: Path, published: Path, tmp_path: Path) -> None:
    assert outcome.verified(published)[:2] == ([], [])
    assert outcome.unpacked(published, tmp_path / "again") == []
    for path in record.rglob("*"):
        again = tmp_path / "again" / path.relative_to(record)
        if path.suffix == ".parquet":
            assert pq.read_table(path).equals(pq.read_table(again))
        elif path.is_file():
            assert path.read_bytes() == again.read_bytes(), path
    assert outcome.faults(tmp_path / "again") == []
    publish(tmp_path / "again", tmp_path / "again.record")
    assert (tmp_path / "again.record").read_bytes() == published.read_bytes()


def test_its_report_is_written_elsewhere(record: Path, published: Path, tmp_path: Path) -> None:
    written = outcome.conclude_again(published, tmp_path / "out")
    assert sorted(each.name for each in written.paths) == sorted(DERIVED)
    assert all((record / each.name).read_bytes() == each.read_bytes() for each in written.paths)
    with pytest.raises(RecordError, match="say with --out where its report is to be written"):
        outcome.conclude_again(published)


def test_two_are_compared_by_their_names(record: Path, published: Path, tmp_path: Path) -> None:
    again = shutil.copytree(record, tmp_path / "again")
    (again / MANIFEST).unlink()
    seal(again)
    said = outcome.compared(published, again)
    assert said.splitlines()[0] == f"A: {published} (fabricated)"
    assert "verdicts are the same in both" in said


def test_it_and_its_folder_are_the_same_record(record: Path, published: Path) -> None:
    with pytest.raises(ConfigError, match=r"are the same record, SHA-256 of the manifest [0-9a-f]{64}: nothing is"):
        outcome.compared(published, record)


def test_nothing_of_it_is_left(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with opened(published) as (folder, is_published):
        assert is_published
        assert folder.name == "fabricated"
        assert folder.is_relative_to(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at", np.linspace(0, 1, 23).tolist())
def test_a_changed_byte_anywhere_is_noticed(published: Path, tmp_path: Path, at: float) -> None:
    content = bytearray(published.read_bytes())
    content[round(at * (len(content) - 1))] ^= 64
    (tmp_path / "changed.record").write_bytes(content)
    with pytest.raises(RecordError, match=r"no published record, or was changed|is not what was sealed"):
        outcome.verified(tmp_path / "changed.record")


def test_one_that_is_cut_off_or_longer_is_refused(published: Path, tmp_path: Path) -> None:
    content = published.read_bytes()
    for each in (b"", MAGIC, content[: len(MAGIC) + 8], content[:-1], content + b"x", b"PK" + content):
        (tmp_path / "changed.record").write_bytes(each)
        with pytest.raises(RecordError, match="no published record, or was changed"):
            restore(tmp_path / "changed.record", tmp_path / "nowhere")


Change = Callable[[dict[str, Any], bytearray], None]


def rewritten(published: Path, target: Path, change: Change) -> Path:
    """``published`` written anew by somebody who knows its form, with ``change`` of its head and files."""
    content = published.read_bytes()
    start = len(MAGIC) + 8
    end = start + int.from_bytes(content[len(MAGIC) : start], "big")
    files = lzma.decompress(content[start:end])
    length = int.from_bytes(files[:4], "big")
    head, blobs = json.loads(files[4 : 4 + length]), bytearray(files[4 + length :])
    change(head, blobs)
    written = json.dumps(head).encode()
    packed = lzma.compress(len(written).to_bytes(4, "big") + written + bytes(blobs))
    target.write_bytes(MAGIC + len(packed).to_bytes(8, "big") + packed + content[end:])
    return target


def test_a_file_that_was_changed_is_named(published: Path, tmp_path: Path) -> None:
    def change(head: dict[str, Any], blobs: bytearray) -> None:
        number = head["files"]["plan.yaml"]
        blobs[sum(head["sizes"][:number])] ^= 1

    with pytest.raises(RecordError, match=r"is not what was sealed: plan.yaml: changed since it was sealed$"):
        outcome.verified(rewritten(published, tmp_path / "changed.record", change))


def _added(head: dict[str, Any], blobs: bytearray) -> None:
    head["files"]["more.txt"] = 0


def _removed(head: dict[str, Any], blobs: bytearray) -> None:
    del head["files"]["environment.json"]


def _swapped(head: dict[str, Any], blobs: bytearray) -> None:
    one, other = head["tables"][0]["names"][:2]
    head["tables"][0]["names"][:2] = [other, one]
    head["tables"][0]["checks"][:2] = head["tables"][0]["checks"][:2][::-1]


def _other_report(head: dict[str, Any], blobs: bytearray) -> None:
    head["derived"]["report.html"]["sha256"] = "0" * 64


@pytest.mark.parametrize("change", [_added, _removed, _swapped, _other_report])
def test_another_list_of_files_is_noticed(published: Path, tmp_path: Path, change: Change) -> None:
    with pytest.raises(RecordError, match="is not what was sealed"):
        outcome.verified(rewritten(published, tmp_path / "changed.record", change))


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "manifest.json", "report.html", "a\0b", "", "a//b"])
def test_a_name_that_leads_elsewhere_is_refused(published: Path, tmp_path: Path, name: str) -> None:
    def change(head: dict[str, Any], blobs: bytearray) -> None:
        head["files"][name] = 0
        # As whoever writes such a file would do, so that nothing else keeps it from being unpacked.
        head["manifest"] = ""

    path = rewritten(published, tmp_path / "changed.record", change)
    (tmp_path / "inside").mkdir()
    with pytest.raises(RecordError):
        restore(path, tmp_path / "inside")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["changed.record", "inside"]


def test_one_that_unpacks_to_too_much_is_refused(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in (1000, published.stat().st_size):
        monkeypatch.setattr(compact, "MOST_BYTES", most)
        with pytest.raises(RecordError, match=r"too large|more than \d+ bytes"):
            restore(published, tmp_path / "x")


def test_what_is_not_as_it_was_sealed_is_not_published(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    (copy / "plan.yaml").write_text("name: other")
    with pytest.raises(RecordError, match=r"is not published, .*plan\.yaml: changed since it was sealed"):
        outcome.published(copy, tmp_path / "x.record")
    (copy / MANIFEST).unlink()
    with pytest.raises(RecordError, match="is not sealed"):
        outcome.published(copy, tmp_path / "x.record")
    assert not (tmp_path / "x.record").exists()


def test_one_of_an_older_format_is_sealed_anew_first(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    manifest = json.loads((copy / MANIFEST).read_bytes())
    (copy / MANIFEST).write_text(json.dumps(manifest | {"format": 4}))
    with pytest.raises(RecordError, match="has format 4, and 5 is published: write its report anew first"):
        outcome.published(copy, tmp_path / "x.record")
    outcome.conclude_again(copy)
    outcome.published(copy, tmp_path / "x.record")
    assert outcome.faults(tmp_path / "x.record") == []


def test_figures_made_by_other_versions_are_judged_by_their_digits(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    # As another version would have written them: another page, figures that differ in the last digits.
    (copy / "report.html").write_text((copy / "report.html").read_text() + "<!-- other -->")
    results = json.loads((copy / "results.json").read_text(), parse_float=lambda text: float(text) * (1 + 1e-13))
    (copy / "results.json").write_text(json.dumps(results))
    with monkeypatch.context() as patched:
        patched.setattr("anywire_experiment.record.manifest.libraries", lambda: {"numpy": "0.1"})
        seal(copy)
    publish(copy, tmp_path / "x.record")
    for path in (copy, tmp_path / "x.record"):
        found = outcome.verified(path)
        assert found.faults == []
        (note,) = found.notes
        assert "results.json, report.html made here are not so byte for byte" in note
        assert f"numpy 0.1 → {figures.libraries()['numpy']}" in note
    # By the same versions nothing explains it.
    (copy / "plan.json").write_text((copy / "plan.json").read_text() + " ")
    seal(copy)
    assert "report.html: is not what the raw data give" in outcome.faults(copy)


def test_figures_that_differ_are_found_without_those_of_the_author(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    results = json.loads((copy / "results.json").read_text())
    results["figures"][0]["requests"] += 1
    (copy / "results.json").write_text(json.dumps(results))
    seal(copy)
    publish(copy, tmp_path / "x.record")
    assert "results.json: the raw data give other figures than those that were sealed" in outcome.faults(
        tmp_path / "x.record"
    )
    with pytest.raises(RecordError, match="is not published"):
        outcome.published(copy, tmp_path / "y.record")


def test_rows_written_anew_by_another_library_are_the_same_rows(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    path = copy / "cells/b003/dds/samples.parquet"
    before = path.read_bytes()
    pq.write_table(pq.read_table(path), path, compression="gzip", row_group_size=7)
    assert path.read_bytes() != before
    assert differences(copy) == []
    assert outcome.faults(copy) == []


def test_one_that_was_unpacked_by_other_versions_is_no_other_record(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page is drawn otherwise there, which is told; and a page that nobody draws so is still named."""
    made = report.texts

    def drawn_here(folder: Path) -> dict[str, str]:
        return {name: text + "<!-- here -->" * (name == "report.html") for name, text in made(folder).items()}

    monkeypatch.setattr(verification, "texts", drawn_here)
    monkeypatch.setattr(report, "texts", drawn_here)
    monkeypatch.setattr(verification, "libraries", lambda: figures.libraries() | {"matplotlib": "0.1"})
    folder = tmp_path / "unpacked"
    assert outcome.unpacked(published, folder) == ["report.html: changed since it was sealed"]
    found = outcome.verified(folder)
    assert found.faults == []
    assert "report.html made here are not so byte for byte" in found.notes[0]
    outcome.check(folder)
    (folder / "report.html").write_text("all is well")
    assert outcome.faults(folder) == ["report.html: changed since it was sealed"]
    with pytest.raises(RecordError, match=r"report\.html: changed since it was sealed"):
        outcome.check(folder)


def test_its_tables_and_what_is_exported_are_those_of_the_folder(record: Path, published: Path, tmp_path: Path) -> None:
    for path, out in ((record, tmp_path / "a"), (published, tmp_path / "b")):
        export(path, out, ["parquet"])
    names = sorted(each.relative_to(tmp_path / "a") for each in (tmp_path / "a").rglob("*") if each.is_file())
    assert names
    assert all((tmp_path / "a" / each).read_bytes() == (tmp_path / "b" / each).read_bytes() for each in names)
    assert load(published).requests.equals(load(record).requests)


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\udcff"])
def test_a_name_that_would_write_to_a_terminal_is_shown_as_text(record: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    (copy / name).write_text("")
    (said,) = differences(copy)
    assert said == f"{name!a}: not in the manifest"
    assert said.isprintable()
