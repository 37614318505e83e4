"""Systems that are not Anywire's, really run: in the cell, in its cost, in the record, and nothing left of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from tests.experiment.real_runs import QUICK, STREAMS, done, run_cell, written

pytestmark = pytest.mark.timeout(240)

ENGINE = {
    "command": [
        *("{python}", "-m", "anywire_experiment.mock_engine", "--host", "{host}", "--port", "{port}"),
        *("--itl", "2"),
    ],
    "ready": {"url": "http://{host}:{port}/health"},
    "shared": True,
}
PROXY = """
import asyncio, os, subprocess, sys, time

async def passed_on(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

async def copy(reader, writer):
    while block := await reader.read(65536):
        writer.write(block)
    writer.close()

async def main():
    # One that has ended when its cost is asked for.
    subprocess.run([sys.executable, "-c", "import time; [0 for _ in iter(lambda: time.process_time() < 0.4, False)]"])
    # A child that leaves the session and the tree, as a daemon does.
    child = subprocess.Popen(["sh", "-c", "setsid sleep 3600 & echo $!"], stdout=subprocess.PIPE)
    open(sys.argv[3], "wb").write(child.stdout.readline())
    server = await asyncio.start_server(passed_on, "127.0.0.1", int(sys.argv[2]))
    while time.process_time() < 0.3: pass
    print(os.environ["WORD"], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
WORKLOADS = {"one": {"requests": 12, "warm_up": QUICK, "max_tokens": 3}, "streams": STREAMS | {"max_tokens": 5}}


def proxy(told: Path, **members: Any) -> dict[str, Any]:
    return {
        "command": ["{python}", "{folder}/proxy.py", "{engine.port}", "{port}", str(told)],
        "files": {"proxy.py": PROXY},
        "environment": {"WORD": "ready"},
        "ready": "^ready$",
        "base_url": "http://{host}:{port}/v1",
    } | members


def tree(*systems: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "blocks": 1,
        "system": {
            "engine": {"name": "openai", "base_url": "http://{engine.host}:{engine.port}/v1"},
            "agent": {"slots": 8},
            "transports": "zeromq",
            "log_level": "warning",
        },
        "companions": {"engine": ENGINE},
        "factors": {"system": list(systems)},
        "workloads": WORKLOADS,
    } | members


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_every_system_is_asked_the_same_and_counted_with_all_its_processes(tmp_path: Path) -> None:
    told = tmp_path / "told"
    direct = {"direct": {"base_url": "http://{engine.host}:{engine.port}"}}
    given = {"proxy": {"proxy": proxy(told)}, "direct": direct, "ours": {"ours": {"config": {}}}}
    cells = {name: await run_cell(tree(each), tmp_path / name, 0) for name, each in given.items()}
    assert {name: (each.state, each.reason) for name, each in cells.items()} == dict.fromkeys(given, ("completed", ""))
    rows = {name: pq.read_table(tmp_path / name / "samples.parquet").to_pylist() for name in given}
    for each in rows.values():
        assert {row["outcome"] for row in each} == {"ok"}
        assert {row["tokens"] for row in each if row["workload"] == "streams"} == {5}
    texts = [[row["text_hash"] for row in each if row["phase"] == "measured"] for each in rows.values()]
    assert texts[0] == texts[1] == texts[2], "each system gave the answers of the same engine"
    assert {row["transport"] for row in rows["proxy"]} == {""}
    assert {row["transport"] for row in rows["ours"]} == {"zeromq"}
    assert sorted(cells["proxy"].processes) == ["engine", "load", "system"]
    assert sorted(cells["direct"].processes) == ["engine", "load"]
    use = cells["proxy"].processes["system"]
    assert use.cpu_seconds >= 0.7, "with the child that has ended"
    assert use.lives == 1
    assert use.cpus == cells["proxy"].cpus["system"]
    assert [name for name, each in cells["proxy"].processes.items() if each.shared] == ["engine"]
    for run in cells["proxy"].workloads.values():
        assert run.cpu_seconds["system"] > 0
        assert run.cpu_seconds["engine"] > 0
        assert run.wire_bytes is None or run.wire_bytes > 0
    assert is_gone(int(told.read_text())), "what left its tree ends with it"
    kept = json.loads((tmp_path / "proxy/system.json").read_bytes())
    assert kept["command"][:2] == ["{python}", "{folder}/proxy.py"]
    assert kept["files"] == {"proxy.py": PROXY}
    assert (tmp_path / "proxy/logs/system.log").read_text() == "ready\n"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"ready": {"url": "/nothing"}, "command": ["{python}", "-c", "import time; time.sleep(99)"]}, "never ready"),
        (
            {"base_url": "http://{host}:{port}/v2"},
            r"never ready: no answer within 4 s \(.*tell its models: invalid_request",
        ),
        ({"command": ["{python}", "-c", "raise SystemExit('no licence')"]}, "no licence"),
        ({"command": ["{python}", "-c", "print('ready')"]}, "the system ended on its own .exit status 0."),
    ],
)
async def test_a_system_that_does_not_come_says_why(tmp_path: Path, members: dict[str, Any], said: str) -> None:
    system = {"proxy": proxy(tmp_path / "told", **members)}
    cell = await run_cell(tree(system, ready_timeout=4), tmp_path / "cell", 0)
    assert cell.state == "failed"
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(cell.reason)


async def test_a_record_of_systems_tells_what_was_left_out_and_verifies(tmp_path: Path) -> None:
    missing = {"base_url": "http://{host}:{port}", "command": ["no-such-gateway"], "optional": True}
    systems = [
        {"proxy": proxy(tmp_path / "told")},
        {"direct": {"base_url": "http://{engine.host}:{engine.port}"}},
        {"other": missing},
    ]
    path = written(tmp_path, tree(*systems, blocks=2))
    status, said = await done("run", path, "--out", tmp_path / "record")
    assert status == 0, said
    assert "the system other is left out: there is no program 'no-such-gateway' here" in said
    status, said = await done("verify", tmp_path / "record")
    assert status == 0, said
    report = (tmp_path / "record/report.md").read_text()
    assert "the system other was left out: there is no program 'no-such-gateway' here" in report
    results = json.loads((tmp_path / "record/results.json").read_bytes())
    assert {each["arm"] for each in results["figures"]} == {"proxy", "direct"}
    (session,) = json.loads((tmp_path / "record/environment.json").read_bytes())["sessions"]
    assert list(session["left_out"]) == ["other"]
    assert {"system proxy", "companion engine"} <= set(session["environment"]["sources"])
