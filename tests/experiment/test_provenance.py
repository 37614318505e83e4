"""The code that was measured is in the record where nobody else keeps it, and is told everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.experiment.fabricated import fabricate, plan_of
from tests.experiment.test_sources import git

import anywire
from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.plan.arms import arms_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record import provenance
from anywire_experiment.record.checkout import _state, changes_of
from anywire_experiment.record.environment import environment
from anywire_experiment.record.folder import Sessions
from anywire_experiment.record.sources import Code, Source, source_of, wheel_of
from anywire_experiment.report import texts

TREE = {"name": "t", "system": {"engine": "synthetic"}, "workloads": {"one": {"requests": 5}}}
ARMS = arms_of(Plan.model_validate(TREE))


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    _state.cache_clear()
    yield
    _state.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean one with a package."""
    folder = tmp_path / "checkout"
    (folder / "theirs").mkdir(parents=True)
    (folder / "theirs/__init__.py").write_text("ONE = 1\n")
    (folder / "theirs/more.py").write_text("TWO = 2\n")
    (folder / "notes.txt").write_text("notes\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_a_clean_checkout_has_no_changes(checkout: Path, tmp_path: Path) -> None:
    assert changes_of(checkout / "theirs/__init__.py") == ""
    (tmp_path / "alone.py").write_text("")
    assert changes_of(tmp_path / "alone.py") == ""


def test_changes_are_a_patch_of_python_files_alone(checkout: Path) -> None:
    (checkout / "theirs/more.py").write_text("TWO = 3\n")
    (checkout / "theirs/new.py").write_text("NEW = 4\n")
    (checkout / "notes.txt").write_text("a password\n")
    (checkout / "new.txt").write_text("another\n")
    patch = changes_of(checkout / "theirs/__init__.py")
    assert "-TWO = 2\n+TWO = 3\n" in patch
    assert "+NEW = 4\n" in patch
    assert "password" not in patch
    assert "another" not in patch
    # It makes of the commit what was measured.
    git(checkout, "checkout", "-q", ".")
    (checkout / "theirs/new.py").unlink()
    (checkout.parent / "patch").write_text(patch)
    git(checkout, "apply", str(checkout.parent / "patch"))
    assert (checkout / "theirs/more.py").read_text() == "TWO = 3\n"
    assert (checkout / "theirs/new.py").read_text() == "NEW = 4\n"


def test_what_differs_from_anywires_commit_is_kept(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire, "__file__", str(checkout / "theirs/__init__.py"))
    monkeypatch.setattr(provenance, "code_of", lambda arms: {})
    provenance.keep(tmp_path / "record", ARMS)
    assert not (tmp_path / "record").exists()
    (checkout / "theirs/more.py").write_text("TWO = 3  # sk-abcdefghijklmnopqrstuvwxyz\n")
    _state.cache_clear()
    provenance.keep(tmp_path / "record", ARMS)
    (kept,) = (tmp_path / "record/sources").iterdir()
    assert kept.name.startswith("anywire-")
    assert "+TWO = 3" in kept.read_text()
    assert "abcdefghijklmnopqrstuvwxyz" not in kept.read_text()
    # Another session with other code keeps that too.
    (checkout / "theirs/more.py").write_text("TWO = 4\n")
    _state.cache_clear()
    provenance.keep(tmp_path / "record", ARMS)
    assert len(list((tmp_path / "record/sources").iterdir())) == 2
    (checkout / "theirs/more.py").write_text("#" * (provenance.MOST_BYTES + 1))
    _state.cache_clear()
    provenance.keep(tmp_path / "record", ARMS)
    assert len(list((tmp_path / "record/sources").iterdir())) == 2


def test_the_code_of_others_is_kept_whole(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Code(str(checkout / "theirs/more.py"), "theirs.more", "their-plugin", "1.0")
    found = {
        "selectors theirs": theirs,
        "selectors built": Code(None, "built", "built-plugin", "2.0"),
        "engines ours": Code(str(checkout / "theirs/more.py"), "theirs.more", "anywire-engine", "0.1"),
    }
    monkeypatch.setattr(provenance, "code_of", lambda arms: found)
    provenance.keep(tmp_path / "record", ARMS)
    (folder,) = (each for each in (tmp_path / "record/sources").iterdir() if each.is_dir())
    assert folder.name == f"their-plugin-{source_of(theirs).sha256[:12]}"
    kept = {each.relative_to(folder).as_posix(): each.read_text() for each in folder.rglob("*.py")}
    assert kept == {"__init__.py": "ONE = 1\n", "more.py": "TWO = 2\n"}


def test_a_wheel_is_told_by_the_hash_of_what_it_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "their_plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[anywire.selectors]\ntheirs = their_plugin.inside:Theirs\n")
    (tmp_path / "their_plugin.py").write_text("ONE = 1\n")
    listed = "their_plugin.py,sha256=abc,8\ntheir_plugin-1.0.dist-info/RECORD,,\n"
    (information / "RECORD").write_text(listed)
    monkeypatch.syspath_prepend(str(tmp_path))
    for each in (wheel_of, provenance.installed):
        each.cache_clear()
    first = wheel_of("their-plugin")
    assert len(first) == 32
    found = provenance.installed()["their-plugin"]
    assert (found.version, found.module, found.files, found.wheel) == ("1.0", "their_plugin", 1, first)
    assert "wheel" in str(found)
    assert "their_plugin" not in sys.modules
    # What an installer adds changes nothing, what the wheel brings does.
    (information / "RECORD").write_text(listed + "__pycache__/their_plugin.cpython-311.pyc,,\n")
    wheel_of.cache_clear()
    assert wheel_of("their-plugin") == first
    (information / "RECORD").write_text(listed.replace("abc", "abd"))
    wheel_of.cache_clear()
    assert wheel_of("their-plugin") != first
    (information / "direct_url.json").write_text('{"dir_info": {"editable": true}}')
    wheel_of.cache_clear()
    assert wheel_of("their-plugin") == ""
    assert wheel_of("there-is-none") == ""
    for each in (wheel_of, provenance.installed):
        each.cache_clear()


def test_code_that_was_changed_is_a_caution_in_the_report(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(blocks=1, workloads={"one-client": {"requests": 20}}, metrics=["latency"]))
    path = folder / "environment.json"
    sessions = msgspec.json.decode(path.read_bytes(), type=Sessions)
    sources = {
        "selectors mine": Source("mine", "1.0", "mine", 1, "a" * 64, "f" * 40, "b" * 16),
        "engines theirs": Source("theirs", "2.0", "theirs"),
        "companion server": Source(module="python3"),
        "transports dds": Source("anywire-dds", "0.1.0", "anywire_dds", 9, "c" * 64, "e" * 40, "d" * 16),
    }
    here = msgspec.structs.replace(
        sessions.sessions[0].environment, commit="e" * 40, dirty="d" * 16, sources=sources, installed={}
    )
    sessions.sessions[0].environment = here
    path.write_bytes(msgspec.json.encode(sessions))
    said = analyse(folder).cautions
    assert (
        "Anywire was not as in its commit eeeeeeeeeeee: what differs is in the record, "
        "sources/anywire-dddddddddddddddd.patch, where it is of Python files and not too long"
    ) in said
    assert "the code of selectors mine was not as in its commit; what ran is in the record's sources" in said
    assert "nothing tells what code engines theirs had: no file of it could be hashed, or they are too large" in said
    assert not [each for each in said if "dds" in each or "server" in each]
    shown = texts(folder)["report.md"].replace("\\", "")
    assert [each for each in said if each.replace("`", "") not in shown] == []
    clean = msgspec.structs.replace(here, dirty="clean", sources={})
    sessions.sessions[0].environment = clean
    path.write_bytes(msgspec.json.encode(sessions))
    assert not [each for each in analyse(folder).cautions if "commit" in each or "code" in each]


def test_the_environment_tells_no_folder() -> None:
    found = environment([], {})
    assert "/" not in "".join(map(str, found.installed.values()))
