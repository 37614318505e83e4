"""The record's own rules: whose it is, what it keeps of a plan, and when a cell is part of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from anywire.errors import ConfigError
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.record.cells import Cell, write_cell
from anywire_experiment.record.environment import differences as environment_differences
from anywire_experiment.record.environment import environment
from anywire_experiment.record.folder import Record, cells_of, plan_of, runnable_plan_of
from anywire_experiment.record.manifest import differences
from anywire_experiment.record.masking import redacted
from anywire_experiment.record.storage import RecordError

BASE: dict[str, Any] = {"name": "t", "system": {"engine": "synthetic"}, "workloads": {"one": {"requests": 5}}}


def written(folder: Path, **members: Any) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(BASE | members, sort_keys=False))
    return path


def opened(folder: Path, path: Path) -> Record:
    return Record.create_or_resume(folder, load_plan(path), path)


def cell(block: int = 1, arm: str = "system") -> Cell:
    return Cell(
        block=block,
        arm=arm,
        levels={},
        order=0,
        workload_order=["one"],
        state="completed",
        reason="",
        started="",
        started_ns=1,
        ended="",
        ended_ns=2,
        boot_id="",
        seed=1,
        cpus={},
        workloads={},
        events=[],
        processes={},
        load_average_before=[],
        load_average_after=[],
    )


def test_one_run_at_a_time_writes_a_record(tmp_path: Path) -> None:
    path = written(tmp_path)
    with opened(tmp_path / "record", path), pytest.raises(RecordError, match="another run writes"):
        opened(tmp_path / "record", path)
    opened(tmp_path / "record", path).close()


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(RecordError, match="is not empty and no record: choose another folder with --out"):
        opened(tmp_path, path)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(RecordError, match="cannot be written: Permission denied; choose another with --out"):
        opened(tmp_path / "closed/record", path)


def test_a_record_that_could_not_be_begun_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)

    def full(_: Path, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("anywire_experiment.record.folder.write_whole", full)
        with pytest.raises(RecordError, match="cannot be written: No space left on device"):
            opened(tmp_path / "record", path)
    opened(tmp_path / "record", path).close()
    assert plan_of(tmp_path / "record").name == "t"


def test_another_plan_is_refused_and_the_same_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path)
    opened(tmp_path / "record", path).close()
    opened(tmp_path / "record", path).close()
    written(tmp_path, seed=2, margin=0.2)
    with pytest.raises(RecordError, match="is the record of another plan \\(it differs in seed, margin\\)"):
        opened(tmp_path / "record", path)


def test_a_record_keeps_no_secret_and_says_so_when_it_is_to_be_repeated(tmp_path: Path) -> None:
    path = written(tmp_path, factors={"transport": [{"tls": {"http": {"token": "s3cret"}}}]})
    opened(tmp_path / "record", path).close()
    for each in (tmp_path / "record").iterdir():
        assert each.is_dir() or b"s3cret" not in each.read_bytes()
    assert plan_of(tmp_path / "record").factors["transport"][0].label == "tls"
    with pytest.raises(RecordError, match=r"does not keep: factors\.transport\.tls\.http\.token"):
        runnable_plan_of(tmp_path / "record")
    opened(tmp_path / "record", path).close()


def test_a_trace_is_part_of_the_record(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,3,4\n")
    arrivals = {"kind": "trace", "file": "trace.csv"}
    path = written(tmp_path, workloads={"one": {"arrivals": arrivals}})
    opened(tmp_path / "record", path).close()
    (tmp_path / "trace.csv").rename(tmp_path / "gone.csv")
    found = runnable_plan_of(tmp_path / "record").workloads["one"].arrivals
    assert found.kind == "trace"
    assert found.file.read_text() == (tmp_path / "gone.csv").read_text()
    again = Record.create_or_resume(tmp_path / "again", runnable_plan_of(tmp_path / "record"), path)
    again.close()
    assert (tmp_path / "again/plan.json").read_bytes() == (tmp_path / "record/plan.json").read_bytes()


def test_a_file_of_plugins_is_part_of_the_record(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("# hooks\n")
    path = written(tmp_path, system={"engine": "synthetic", "plugins": ["mine.py", "json"]})
    opened(tmp_path / "record", path).close()
    assert (tmp_path / "record" / "plugins" / "mine.py").read_text() == "# hooks\n"
    (tmp_path / "mine.py").unlink()
    again = load_plan(tmp_path / "record" / "plan.json")
    assert [Path(each).name for each in again.system["plugins"]] == ["mine.py", "json"]
    with pytest.raises(ConfigError, match=r"system.plugins: there is no file mine.py"):
        load_plan(path)


def test_a_cell_is_there_when_it_is_kept_and_not_before(tmp_path: Path) -> None:
    path = written(tmp_path)
    with opened(tmp_path / "record", path) as record:
        partial = record.partial(1, "system")
        partial.mkdir(parents=True)
        write_cell(partial, cell())
        assert not record.has(1, "system")
        assert cells_of(tmp_path / "record") == []
        record.keep(partial, cell())
        assert record.has(1, "system")
        lost = record.partial(2, "system")
        lost.mkdir(parents=True)
        write_cell(lost, cell(2))
    # As after a kill: what was not whole is gone, what was whole stays.
    with opened(tmp_path / "record", path) as record:
        assert cells_of(tmp_path / "record") == [cell()]
        assert not lost.exists()


def test_a_record_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"^there is no record .*nothing$"):
        differences(tmp_path / "nothing")


def test_a_seal_notices_every_change(tmp_path: Path) -> None:
    path = written(tmp_path)
    with opened(tmp_path / "record", path) as record:
        with pytest.raises(RecordError, match="is not sealed \\(0 cells are there\\)"):
            differences(record.folder)
        record.seal()
        assert record.sealed
        assert differences(record.folder) == []
        (record.folder / "plan.yaml").write_text("name: other")
        (record.folder / "extra").write_text("")
        assert differences(record.folder) == [
            "extra: not in the manifest",
            "plan.yaml: changed since it was sealed",
        ]
        (record.folder / "plan.json").unlink()
        assert "plan.json: missing" in differences(record.folder)
        (record.folder / "manifest.json").write_text("{}")
        with pytest.raises(RecordError, match="is no manifest"):
            differences(record.folder)


def test_a_folder_that_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"is no record of an experiment: there is no plan\.json in it"):
        plan_of(tmp_path)


def test_an_environment_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("socket.gethostname", lambda: "adas-laptop")
    given = ["run", "/home/ada/plan.yaml", "--out", "/home/bob/x", "--sign=/srv/ada/key.pem", "../y", "--set", "a=b"]
    found = environment(given, {})
    told = ["run", "~/plan.yaml", "--out", "~/x", "--sign=…/key.pem", "../y", "--set", "a=b"]
    assert found.invocation == told
    assert "adas-laptop" not in repr(found)
    assert found.anywire["anywire"]
    assert found.packages["pyarrow"]
    assert redacted("at /home/ada/x on adas-laptop-17") == "at ~/x on HOST-17"


def test_what_changed_between_two_sessions_is_told() -> None:
    first, second = environment([], {}), environment(["other"], {})
    second.load_average = [9.0]
    assert environment_differences(first, second) == []
    second.kernel = "Linux 1"
    second.packages = second.packages | {"pyarrow": "0"}
    assert environment_differences(first, second) == [
        f"packages pyarrow: {first.packages['pyarrow']} → 0",
        f"kernel: {first.kernel} → Linux 1",
    ]
