"""Whatever is done to any file of a real record is named, by every command that takes the record."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.experiment.real_runs import ONE, QUICK, done, plan_tree, written
from tests.long_form import SOAK
from typer.testing import CliRunner

from anywire.identities.identity_proof import Identity
from anywire_experiment import outcome
from anywire_experiment.cli import app
from anywire_experiment.record import signature
from anywire_experiment.record.content import SUFFIX
from anywire_experiment.record.manifest import DERIVED, MANIFEST, SIGNATURE, entry_of, seal
from anywire_experiment.record.storage import RecordError

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("computed_once")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, dds_domain: int) -> Path:
    """A folder with a signed record of real runs, ``record``, and the ``key`` of its author."""
    folder = tmp_path_factory.mktemp("whole")
    streams = {"requests": 10, "stream": True, "max_tokens": 4, "warm_up": QUICK}
    trace = {"arrivals": {"kind": "trace", "file": "trace.csv"}, "warm_up": QUICK}
    (folder / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,3,4\n0.01,3,4\n")
    (folder / "mine.py").write_text("# no hooks\n")
    tree = plan_tree(
        dds_domain,
        blocks=2,
        factors={"transport": ["memory", "zeromq"]},
        workloads={"one": ONE, "streams": streams, "traced": trace},
    )
    tree["system"]["plugins"] = ["mine.py"]
    Identity.from_file(folder / "key")
    command = ("run", written(folder, tree), "--out", folder / "record", "--sign", folder / "key")
    status, said = asyncio.run(done(*command))
    assert status == 0, said
    return folder


@pytest.fixture
def record(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "record", tmp_path / "record")


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# What is done to a file; each says whether it could be done.


def changed(path: Path) -> bool:
    before = entry_of(path).sha256
    content = bytearray(path.read_bytes()) or bytearray(b"\0")
    # Of a table not one byte alone: some of them say nothing of its values, which are what is sealed.
    step = 7 if path.suffix == ".parquet" else len(content)
    for at in range(len(content) // 2, len(content), step):
        content[at] ^= 1
    path.write_bytes(content)
    # A byte of a table's file by which no value is another one.
    try:
        return path.suffix != SUFFIX or entry_of(path).sha256 != before
    except OSError:
        return True


def cut(path: Path) -> bool:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return bool(content)


def removed(path: Path) -> bool:
    path.unlink()
    return True


def linked(path: Path) -> bool:
    """To a file with the same content outside of the record."""
    outside = Path(f"{_top(path)}-{path.name}")
    path.rename(outside)
    path.symlink_to(outside)
    return True


def swapped(path: Path) -> bool:
    """With the file of the same name in the other block, where that says something else. Of one block alone: all that
    is swapped twice is as it was."""
    other = Path(str(path).replace("/b001/", "/b002/"))
    if not other.exists() or other == path or other.read_bytes() == path.read_bytes():
        return False
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return True


def _top(path: Path) -> Path:
    return next(each for each in path.parents if (each / "cells").exists())


TAMPERED: list[Callable[[Path], bool]] = [changed, cut, removed, linked, swapped]


@pytest.mark.parametrize("tamper", TAMPERED)
def test_every_file_is_watched(made: Path, tmp_path: Path, tamper: Callable[[Path], bool]) -> None:
    """All at once; in the long form also each by itself."""
    names = [each for each in files_of(made / "record") if each not in (MANIFEST, SIGNATURE)]
    record = shutil.copytree(made / "record", tmp_path / "record")
    found = [name for name in names if tamper(record / name)]
    assert found
    assert {each.partition(": ")[0] for each in outcome.faults(record)} >= {*found}
    for number, name in enumerate(names if SOAK else []):
        record = shutil.copytree(made / "record", tmp_path / str(number))
        if tamper(record / name):
            assert any(each.startswith(f"{name}: ") for each in outcome.faults(record)), name
            with pytest.raises(RecordError, match=re.escape(name)):
                outcome.check(record)


@pytest.mark.parametrize("tamper", [changed, cut, removed, linked])
def test_what_seals_a_record_is_watched(record: Path, made: Path, tamper: Callable[[Path], bool]) -> None:
    author = Identity.from_file(made / "key").fingerprint
    kept = (record / MANIFEST).read_bytes()
    tamper(record / MANIFEST)
    try:
        said = outcome.verified(record, author).faults
    except RecordError as error:
        said = [str(error)]
    assert re.search(f"{MANIFEST}.* was changed|is no manifest|is not sealed", "; ".join(said))
    (record / MANIFEST).unlink(missing_ok=True)
    (record / MANIFEST).write_bytes(kept)
    tamper(record / SIGNATURE)
    assert any(each.startswith(f"{SIGNATURE}: ") for each in signature.faults_of_signature(record, author))
    if tamper is not removed:  # then it is unsigned, which is told, and refused where an author is expected
        with pytest.raises(RecordError, match=f"{SIGNATURE}: "):
            outcome.check(record)


@pytest.mark.parametrize("name", ["more.txt", "cells/b001/memory/more.txt", ".hidden", "cells/b003/x/cell.json"])
def test_a_file_that_is_added_is_named(record: Path, name: str) -> None:
    (record / name).parent.mkdir(parents=True, exist_ok=True)
    (record / name).write_text("more")
    assert f"{name}: not in the manifest" in outcome.faults(record)
    (record / name).unlink()
    (record / name).symlink_to("/dev/zero")
    assert f"{name}: is no plain file, and a record holds nothing else" in outcome.faults(record)


def test_a_linked_folder_is_named(record: Path, tmp_path: Path) -> None:
    (record / "cells/b001").rename(tmp_path / "b001")
    (record / "cells/b001").symlink_to(tmp_path / "b001")
    said = outcome.faults(record)
    assert "cells/b001: is no plain file, and a record holds nothing else" in said
    assert "cells/b001/memory/cell.json: missing" in said


def test_cells_of_another_record_are_named(record: Path, made: Path, tmp_path: Path) -> None:
    """Of the same plan, sealed by itself: as if a better block had been chosen."""
    other = shutil.copytree(record, tmp_path / "other")
    path = other / "cells/b001/memory/samples.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("done_ns")
    faster = pa.array([each - 1000 for each in table["done_ns"].to_pylist()])
    pq.write_table(table.set_column(at, table.schema.field(at), faster), path)
    seal(other)
    shutil.rmtree(record / "cells/b001")
    shutil.copytree(other / "cells/b001", record / "cells/b001")
    assert "cells/b001/memory/samples.parquet: changed since it was sealed" in outcome.faults(record)


def test_who_seals_again_has_no_signature(record: Path, made: Path) -> None:
    """Everything agrees then but the author, which is why one is asked for."""
    author = Identity.from_file(made / "key").fingerprint
    signed = (record / SIGNATURE).read_bytes()
    environment = json.loads((record / "environment.json").read_bytes())
    environment["sessions"][0]["environment"]["cpu_model"] = "a better one"
    (record / "environment.json").write_text(json.dumps(environment))
    (record / MANIFEST).unlink()
    seal(record)
    for each in (record / name for name in DERIVED):
        each.unlink()
    outcome.conclude_again(record)
    found = outcome.verified(record)
    assert found.faults == []
    assert "is not signed: nothing tells who has sealed it" in found.signed
    (told,) = outcome.verified(record, author=author).faults
    assert told == f"signature.json: missing, so nothing tells that {author} has sealed it"
    (record / SIGNATURE).write_bytes(signed)
    (told,) = outcome.faults(record)
    assert told.startswith("signature.json: does not hold: manifest.json or the signature was changed since SHA256:")


# Through the commands


@pytest.fixture(scope="module")
def tampered(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples in which one request took a second longer."""
    record = shutil.copytree(made / "record", tmp_path_factory.mktemp("tampered") / "record")
    path = record / "cells/b002/zeromq/samples.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("done_ns")
    done_ns = [table["done_ns"][0].as_py() + 10**9, *table["done_ns"].to_pylist()[1:]]
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(done_ns)), path)
    return record


COMMANDS = [
    ("verify", "{record}"),
    ("report", "{record}"),
    ("report", "{record}", "--out", "{out}"),
    ("compare", "{record}", "{whole}"),
    ("compare", "{whole}", "{record}"),
    ("reproduce", "{record}", "--out", "{out}"),
    ("calibrate", "{record}", "--workload", "streams"),
    ("publish", "{record}", "--out", "{out}"),
    ("sign", "{record}", "--key", "{key}"),
    ("export", "{record}", "--out", "{out}"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: f"{each[0]}-{len(each)}")
def test_every_command_names_it(tampered: Path, made: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    places = {"record": tampered, "whole": made / "record", "out": tmp_path / "out", "key": made / "key"}
    before = {name: (tampered / name).read_bytes() for name in files_of(tampered)}
    found = CliRunner().invoke(app, [each.format(**places) for each in command])
    assert found.exit_code == 1
    said = f"{found.output}{found.exception}"
    assert "cells/b002/zeromq/samples.parquet: changed since it was sealed" in said
    assert not (tmp_path / "out").exists()
    assert {name: (tampered / name).read_bytes() for name in files_of(tampered)} == before


def test_a_report_that_was_changed_is_named_when_it_is_written_anew(record: Path, made: Path) -> None:
    page = (record / "report.html").read_bytes()
    (record / "report.html").write_bytes(page.replace(b"memory", b"better"))
    found = CliRunner().invoke(app, ["report", str(record), "--sign", str(made / "key")])
    assert found.exit_code == 0
    assert "written anew: report.html: changed since it was sealed" in found.output
    assert (record / "report.html").read_bytes() == page
    assert outcome.verified(record, author=Identity.from_file(made / "key").fingerprint).faults == []


def test_a_report_that_says_something_else_and_is_sealed_is_named(record: Path) -> None:
    for name in ("report.html", "report.md", "results.csv", "results.tex"):
        (record / name).write_text((record / name).read_text().replace("memory", "better"))
    seal(record)
    said = outcome.faults(record)
    assert [each for each in said if "is not what the raw data give" in each] == [
        f"{name}: is not what the raw data give" for name in ("report.html", "report.md", "results.csv", "results.tex")
    ]


@pytest.fixture(autouse=True)
def _no_key_of_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_record_made_elsewhere_verifies(record: Path, made: Path, tmp_path: Path) -> None:
    """In another folder, under another name, in one file or as a folder, without what the plan named."""
    author = Identity.from_file(made / "key").fingerprint
    outcome.published(record, tmp_path / "elsewhere.record")
    moved = record.rename(tmp_path / "other name")
    for path in (moved, tmp_path / "elsewhere.record"):
        found = outcome.verified(path, author=author)
        assert found.faults == found.notes == []
        assert f"signed by {author}" in found.signed
    assert (tmp_path / "elsewhere.record").stat().st_size < 30_000
