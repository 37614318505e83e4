"""Real runs: whole records, runs that are ended in the middle, and what is told of a plan."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from tests.experiment.real_runs import ONE, PATIENCE, STREAMS, done, experiment, plan_tree, run_cell, written
from tests.long_form import SOAK

from anywire.protocol import PROTOCOL
from anywire_experiment.record import folder as records
from anywire_experiment.record.manifest import differences, seal
from anywire_experiment.record.samples import SAMPLES

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def pids(tmp_path: Path) -> AsyncIterator[asyncio.Queue[int]]:
    """Processes with the plugin `STARTED`, as they start."""
    heard: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "pids"))
        loop.add_reader(made, lambda: heard.put_nowait(int(made.recv(64))))
        yield heard
        loop.remove_reader(made)


# A whole record


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, dds_domain: int) -> Path:
    """A sealed record of three transports; its tests change copies of it."""
    folder = tmp_path_factory.mktemp("whole")
    tree = plan_tree(
        dds_domain,
        blocks=2,
        agents=2,
        factors={"transport": ["memory", "http", "dds"]},
        workloads={"one": ONE, "streams": STREAMS},
    )
    said = asyncio.run(done("run", written(folder, tree), "--out", folder / "record"))
    assert said[0] == 0, said[1]
    return folder / "record"


def test_a_record_holds_everything(record: Path) -> None:
    cells = records.cells_of(record)
    assert [(each.block, each.state) for each in cells] == [(1, "completed")] * 3 + [(2, "completed")] * 3
    assert sorted(each.order for each in cells if each.block == 1) == [0, 1, 2]
    for cell in cells:
        folder = records.cell_folder(record, cell.block, cell.arm)
        rows = pq.read_table(folder / "samples.parquet")
        assert rows.schema.equals(SAMPLES)
        assert {(each["workload"], each["phase"]) for each in rows.select(["workload", "phase"]).to_pylist()} == {
            (workload, phase) for workload in ("one", "streams") for phase in ("warm_up", "measured")
        }
        for row in rows.to_pylist():
            assert (row["outcome"], row["transport"]) == ("ok", cell.arm)
            assert row["stages_comparable"]
            stages = [row[f"stage_{name}_ns"] for name in ("received", "admitted", "selected", "sent", "delivered")]
            assert row["sent_ns"] <= stages[0]
            assert stages == sorted(stages)
            assert stages[-1] <= row["done_ns"]
        names = ["orchestrator"] if cell.arm == "memory" else ["agent-1", "agent-2", "orchestrator"]
        assert sorted(cell.processes) == sorted([*names, "load"])
        for name in names:
            assert yaml.safe_load((folder / f"config-{name}.yaml").read_text())["engine"]["name"] == "synthetic"
            settings = json.loads((folder / f"settings-{name}.json").read_text())
            assert settings[0]["transport"] == cell.arm
            assert cell.arm == "memory" or settings[0]["granted"]
        for name, use in cell.processes.items():
            assert (use.lives, use.exit) == (1, "exit status 0"), name
            assert use.cpu_seconds > 0
            assert use.max_rss_bytes > 0
        assert {each.what for each in cell.events} == {"agent_joined"}
        for run in cell.workloads.values():
            assert cell.started_ns < run.began_ns < run.ended_ns < cell.ended_ns
            assert sum(run.cpu_seconds.values()) > 0
    assert {each.seed for each in cells if each.block == 1} != {each.seed for each in cells if each.block == 2}
    sessions = json.loads((record / "environment.json").read_text())["sessions"]
    assert [(each["ending"], each["cells"]) for each in sessions] == [("complete", 6)]
    assert sessions[0]["environment"]["anywire"]["anywire-experiment"]
    text = (record / "environment.json").read_text()
    assert str(Path.home()) + "/" not in text


async def test_a_finished_record_is_left_alone(record: Path) -> None:
    before = (record / "manifest.json").read_bytes()
    status, said = await done("run", record.parent / "plan.yaml", "--out", record)
    assert status == 0, said
    assert (record / "manifest.json").read_bytes() == before


async def test_a_record_verifies_and_reports_anew(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    status, said = await done("verify", copy)
    assert status == 0, said
    status, said = await done("report", copy)
    assert status == 0, said
    status, said = await done("verify", copy)
    assert status == 0, said


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # Of a table several: some bytes say nothing of its values, which are what is sealed.
    for at in range(len(content) // 2, len(content), 7 if path.suffix == ".parquet" else len(content)):
        content[at] ^= 1
    path.write_bytes(content)


def test_any_change_of_a_file_is_noticed_by_name(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    assert differences(copy) == []
    flip_a_byte(copy / "cells/b001/dds/samples.parquet")
    flip_a_byte(copy / "cells/b002/memory/cell.json")
    flip_a_byte(copy / "plan.yaml")
    (copy / "cells/b001/http/logs/agent-1.log").unlink()
    (copy / "cells/b001/http/more.txt").write_text("more")
    assert differences(copy) == [
        "cells/b001/dds/samples.parquet: changed since it was sealed",
        "cells/b001/http/logs/agent-1.log: missing",
        "cells/b001/http/more.txt: not in the manifest",
        "cells/b002/memory/cell.json: changed since it was sealed",
        "plan.yaml: changed since it was sealed",
    ]


async def test_a_figure_that_the_raw_data_do_not_give_is_named(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    results = json.loads((copy / "results.json").read_text())
    results["figures"][0]["requests"] += 1
    (copy / "results.json").write_text(json.dumps(results))
    # Sealed again, so that the hashes hold: the figure still does not.
    with records.Record.open(copy) as opened:
        opened.seal()
    status, said = await done("verify", copy)
    assert status == 1
    assert re.search(r"results\.json: figures\[[^\]]+\]\.requests: it says", said)


async def test_a_record_of_an_older_format_is_told_as_such(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    for name in ("results.json", "environment.json"):
        (copy / name).write_text((copy / name).read_text().replace('"protocol"', '"before"').replace('"wire"', '"old"'))
    plan = json.loads((copy / "plan.json").read_text())
    plan["system"]["a setting that is gone"] = 1
    (copy / "plan.json").write_text(json.dumps(plan))
    seal(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    status, said = await done("verify", copy)
    assert status == 1
    (told,) = said.splitlines()
    assert told.startswith("old format: this record has format 1")
    assert "every file is as it was sealed" in told
    flip_a_byte(copy / "plan.yaml")
    status, said = await done("verify", copy)
    assert said.splitlines()[0] == "plan.yaml: changed since it was sealed"


async def test_the_record_says_what_went_over_the_wire_and_in_which_version(record: Path) -> None:
    cells = records.cells_of(record)
    assert {each.wire for each in cells} == {"loopback"}
    for cell in cells:
        assert all(run.wire_bytes for run in cell.workloads.values())
    (session,) = json.loads((record / "environment.json").read_text())["sessions"]
    assert session["environment"]["protocol"] == PROTOCOL
    results = json.loads((record / "results.json").read_text())
    carried = {each["arm"]: each["wire_bytes"] for each in results["figures"]}
    # How much it was says nothing here: whatever else this machine sends over the loopback link is counted too.
    assert all(carried.values()), carried
    assert carried.keys() == {"dds", "http", "memory"}
    assert "Wire bytes per task" in (record / "report.md").read_text()


async def test_changed_raw_data_are_no_longer_reported_on(record: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(record, tmp_path / "copy")
    flip_a_byte(copy / "cells/b001/dds/samples.parquet")
    status, said = await done("report", copy)
    assert status == 1
    assert "cells/b001/dds/samples.parquet: changed" in said
    status, said = await done("verify", copy)
    assert status == 1
    assert "cells/b001/dds/samples.parquet: changed" in said


async def test_another_plan_is_refused(record: Path, tmp_path: Path) -> None:
    status, said = await done("run", record.parent / "plan.yaml", "--out", record, "--blocks", "3")
    assert status == 1
    assert "is the record of another plan (it differs in blocks)" in said


async def test_a_record_is_reproduced_and_put_beside_the_first(tmp_path: Path, dds_domain: int) -> None:
    tree = plan_tree(dds_domain, factors={"transport": ["memory"]})
    status, said = await done("run", written(tmp_path, tree), "--out", tmp_path / "record")
    assert status == 0, said
    status, said = await done("reproduce", tmp_path / "record")
    assert status == 0, said
    again = tmp_path / "record-again"
    assert (again / "plan.json").read_bytes() == (tmp_path / "record/plan.json").read_bytes()
    (first,), (second,) = records.cells_of(tmp_path / "record"), records.cells_of(again)
    assert first.seed == second.seed
    status, said = await done("compare", tmp_path / "record", again)
    assert status == 0, said


async def test_the_client_plane_is_measured_too(tmp_path: Path, dds_domain: int) -> None:
    workloads = {"plane": ONE | {"through": "client_plane"}}
    tree = plan_tree(dds_domain, factors={"transport": ["dds"]}, workloads=workloads)
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert cell.state == "completed", cell.reason
    rows = pq.read_table(tmp_path / "cell/samples.parquet").to_pylist()
    assert {(each["outcome"], each["transport"]) for each in rows} == {("ok", "dds")}


# Runs that are ended in the middle


STARTED = """
import os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
    told.connect({!r})
    told.send(str(os.getpid()).encode())
"""
"""A plugin that tells when a process loads it."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT] if SOAK else [signal.SIGKILL])
async def test_an_ended_run_goes_on_where_it_was(
    number: signal.Signals, tmp_path: Path, dds_domain: int, pids: asyncio.Queue[int]
) -> None:
    tree = plan_tree(dds_domain, blocks=2, factors={"transport": ["memory", "zeromq"]})
    tree["system"]["plugins"] = [str(tmp_path / "started.py")]
    (tmp_path / "started.py").write_text(STARTED.format(str(tmp_path / "pids")))
    command = ("run", written(tmp_path, tree), "--out", tmp_path / "record")
    async with experiment(*command) as process, asyncio.timeout(PATIENCE):
        assert process.stdout is not None
        while not (line := await process.stdout.readline()).startswith(b"1/4"):
            assert line, "it ended before its first cell"
        # One that still runs is of the second cell, which is under way.
        family: list[psutil.Process] = []
        while not family:
            started = await pids.get()
            family = [each for each in psutil.Process(process.pid).children(recursive=True) if each.pid == started]
        process.send_signal(number)
        last, _ = await process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert b"the same command goes on" in last
    await asyncio.to_thread(psutil.wait_procs, family, 30)
    assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    (first,) = records.cells_of(tmp_path / "record")
    status, said = await done("verify", tmp_path / "record")
    assert status == 1
    assert "is not sealed (1 cells are there)" in said
    status, said = await done(*command)
    assert status == 0, said
    assert "4 cells, 1 of them done before" in said
    cells = records.cells_of(tmp_path / "record")
    assert first in cells
    assert [each.state for each in cells] == ["completed"] * 4
    status, said = await done("verify", tmp_path / "record")
    assert status == 0, said
    sessions = json.loads((tmp_path / "record/environment.json").read_text())["sessions"]
    assert [each["cells"] for each in sessions] == [1, 3]
    assert [each["ending"] for each in sessions] == [
        "killed" if number == signal.SIGKILL else "interrupted",
        "complete",
    ]
    assert sessions[0]["last_cell"] == first.ended


async def test_a_workload_that_time_ends_too_early_is_told_once(tmp_path: Path, dds_domain: int) -> None:
    slow = {"name": "synthetic", "ttft": {"kind": "constant", "mean": 400.0}}
    tree = plan_tree(
        dds_domain,
        blocks=2,
        factors={"transport": ["memory"]},
        workloads={"brief": {"seconds": 1.0, "warm_up": {"requests": 1, "limit": 1}}, "one": ONE},
    )
    tree["system"]["engine"] = slow
    status, said = await done("run", written(tmp_path, tree), "--out", tmp_path / "record")
    assert status == 0, said
    assert re.search(r"'brief' had [1-4] whole answers in block 1 of memory, .* needs 10 .*: let it last longer", said)
    assert said.count("workload 'brief'") == said.count("workload 'one'") == 1


# Before anything starts


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"factors": {"transport": ["nope"]}}, "no transport named 'nope'; known: dds"),
        ({"cpus": {"load": [4096]}}, "cpus.load: [4096] are not all cores that may be used here"),
    ],
)
async def test_what_cannot_be_run_is_refused_at_once(
    tmp_path: Path, dds_domain: int, members: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, plan_tree(dds_domain, **members))
    status, told = await done("run", path, "--out", tmp_path / "record")
    assert status == 1
    assert said in told
    assert not (tmp_path / "record").exists()


async def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, dds_domain: int) -> None:
    path = written(tmp_path, plan_tree(dds_domain))
    status, said = await done("run", path, "--out", path / "record")
    assert status == 1
    assert "cannot be written: Not a directory; choose another with --out" in said


async def test_the_schema_of_a_plan_is_json_schema() -> None:
    status, said = await done("schema")
    assert status == 0
    assert "workloads" in json.loads(said)["required"]


async def test_a_cell_tells_what_its_orchestrator_has_counted(tmp_path: Path) -> None:
    engine = {"name": "synthetic", "ttft": {"kind": "uniform", "mean": 10, "spread": 10}, "itl": 5}
    hedging = {"share": 1, "percentile": 50, "least": 0}
    tree = plan_tree(0, agents=2, factors={"transport": ["memory"]})
    tree["system"] = {"engine": engine, "agent": {"slots": 8}, "pipeline": {"hedging": hedging}}
    streams = {"requests": 40, "stream": True, "max_tokens": 2, "warm_up": {"requests": 30, "limit": 30}}
    tree["workloads"] = {"streams": streams}
    cell = await run_cell(tree, tmp_path / "cell", 0)
    assert cell.state == "completed", cell.reason
    counted = cell.workloads["streams"].counters
    assert 0 < counted["hedges"] <= 40, "half of the streams are late by the half of those before"
    assert counted["hedges_wasted_s"] > 0
