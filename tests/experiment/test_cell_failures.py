"""Everything that can go wrong in a cell, with real processes and a real disk: it fails, and says why."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.experiment.real_runs import ONE, QUICK, done, plan_tree, run_cell, written
from tests.patience import FACTOR

import anywire_experiment.run.cell
from anywire_experiment.network import unavailable
from anywire_experiment.record import folder as records
from anywire_experiment.run.injection import Injection
from anywire_experiment.run.managed import CellFailed

pytestmark = pytest.mark.timeout(240)


async def test_an_arm_that_cannot_start_fails_alone(tmp_path: Path, dds_domain: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        levels = ["memory", {"taken": {"zeromq": {"agent_addresses": [address]}}}]
        tree = plan_tree(dds_domain, factors={"transport": levels})
        status, said = await done("run", written(tmp_path, tree), "--out", tmp_path / "record")
    assert status == 0, said
    assert "1 cells failed" in said
    states = {each.arm: each for each in records.cells_of(tmp_path / "record")}
    assert states["memory"].state == "completed"
    assert states["taken"].state == "failed"
    assert "orchestrator" in states["taken"].reason
    assert address.removeprefix("tcp://") in states["taken"].reason
    assert (await done("verify", tmp_path / "record"))[0] == 0


async def test_an_arm_that_is_never_ready(tmp_path: Path, dds_domain: int) -> None:
    tree = plan_tree(dds_domain, factors={"transport": ["zeromq"]}, ready_timeout=0.05)
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert cell.state == "failed"
    assert "never ready: no answer within 0.05 s" in cell.reason


@pytest.mark.parametrize("name", ["agent-1", "orchestrator"])
async def test_a_process_that_ends_on_its_own_fails_the_cell(tmp_path: Path, dds_domain: int, name: str) -> None:
    tree = plan_tree(dds_domain, factors={"transport": ["zeromq"]}, workloads={"long": {"seconds": 3600}})

    def end_it(what: str) -> None:
        if what != "long: warm-up":
            return
        role = "agent" if name.startswith("agent") else name
        (found,) = [
            each for each in psutil.Process().children(recursive=True) if f"process {role}" in " ".join(each.cmdline())
        ]
        found.kill()

    cell = await run_cell(tree, tmp_path / "cell", dds_domain, end_it)
    assert cell.state == "failed"
    assert cell.reason.startswith(f"{name} ended on its own during long (killed by SIGKILL)")
    died = [each for each in cell.events if each.what == "died"]
    assert [(each.agent, each.workload) for each in died] == [(name, "long")]


PRINTING = """
import json
import os
import sys

print("{'no': json}")
print(json.dumps({"level": "info", "event": 3}))
print("half a line", end="", flush=True)
os.write(1, b'{"level": "info"}\\n[1]\\n{no json}\\n' + b"[" * 100_000 + b"\\n" + b"x" * (17 << 20) + b"\\n")
"""


async def test_what_a_plugin_prints_disturbs_nothing(tmp_path: Path, dds_domain: int) -> None:
    (tmp_path / "printing.py").write_text(PRINTING)
    tree = plan_tree(dds_domain, factors={"transport": ["zeromq"]})
    tree["system"]["plugins"] = [str(tmp_path / "printing.py")]
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert (cell.state, cell.reason) == ("completed", "")
    assert "half a line" in (tmp_path / "cell/logs/agent-1.log").read_text()


async def test_a_load_generator_that_hangs_fails_the_cell(
    tmp_path: Path, dds_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_experiment.run.cell, "_SILENCE", 1.0)
    tree = plan_tree(dds_domain, factors={"transport": ["memory"]}, workloads={"long": {"seconds": 60, **ONE}})

    def stop_it(what: str) -> None:
        if what == "long: warm-up":
            children = psutil.Process().children(recursive=True)
            (found,) = [each for each in children if "anywire_experiment.load" in each.cmdline()]
            found.suspend()

    cell = await run_cell(tree, tmp_path / "cell", dds_domain, stop_it)
    assert (cell.state, cell.reason) == ("failed", "load: said nothing for 1 s, it hangs")
    assert not psutil.Process().children(recursive=True)


async def test_a_cell_that_is_interrupted_leaves_nothing_private(tmp_path: Path, dds_domain: int) -> None:
    tree = plan_tree(dds_domain, factors={"transport": ["memory"]}, workloads={"long": {"seconds": 60, **ONE}})

    def stop(what: str) -> None:
        if what == "long: warm-up":
            assert (tmp_path / "cell/.private").exists()
            running.cancel()

    running = asyncio.create_task(run_cell(tree, tmp_path / "cell", dds_domain, stop))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not (tmp_path / "cell/.private").exists()
    assert not psutil.Process().children(recursive=True)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of that size; needs root."""
    folder.mkdir()
    options = f"size={kilobytes}k"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"missing: a tmpfs, which cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="missing: root, to mount a small file system")
async def test_a_full_disk_fails_the_cell_with_its_reason(tmp_path: Path, dds_domain: int) -> None:
    workloads = {"many": {"requests": 3000, "warm_up": QUICK, "arrivals": {"kind": "closed", "clients": 8}}}
    tree = plan_tree(dds_domain, factors={"transport": ["memory"]}, workloads=workloads)
    with small_disk(tmp_path / "disk", 300):
        cell = await run_cell(tree, tmp_path / "disk/cell", dds_domain)
        assert cell.state == "failed"
        assert "No space left on device" in cell.reason
        assert not (tmp_path / "disk/cell/samples.parquet").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="missing: root, to mount a small file system")
async def test_a_disk_with_no_room_for_a_cell_ends_the_run_with_advice(tmp_path: Path, dds_domain: int) -> None:
    path = written(tmp_path, plan_tree(dds_domain, factors={"transport": ["memory"]}))
    with small_disk(tmp_path / "disk", 16):
        status, said = await done("run", path, "--out", tmp_path / "disk/record")
    assert status == 1
    assert "cannot be written: No space left on device; what is whole stays, and the same command goes on" in said


@pytest.mark.parametrize(("failing", "told"), [("strike", []), ("undo", ["fault"])])
async def test_a_fault_that_could_not_be_done_or_undone_is_not_told_to_be(
    tmp_path: Path, dds_domain: int, monkeypatch: pytest.MonkeyPatch, failing: str, told: list[str]
) -> None:
    async def fails(injection: Injection) -> None:
        raise CellFailed("it cannot be")

    monkeypatch.setattr(Injection, failing, fails)
    fault = {"kind": "kill", "at": 0.2, "lasts": 0.1}
    workload = {"seconds": 0.5, "arrivals": {"kind": "poisson", "rate": 20}, "warm_up": QUICK, "fault": fault}
    tree = plan_tree(dds_domain, factors={"transport": ["zeromq"]}, workloads={"struck": workload})
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert (cell.state, cell.reason) == ("failed", "it cannot be")
    assert [each.what for each in cell.events if each.what in ("fault", "mended")] == told


async def test_a_killed_agent_is_started_again(tmp_path: Path, dds_domain: int) -> None:
    fault = {"kind": "kill", "at": 0.5, "lasts": 0.5}
    workload = {"seconds": 2, "arrivals": {"kind": "poisson", "rate": 40}, "warm_up": QUICK, "fault": fault}
    tree = plan_tree(dds_domain, agents=2, factors={"transport": ["zeromq"]}, workloads={"killed": workload})
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert cell.state == "completed", cell.reason
    met = [each for each in cell.events if each.at_ns >= cell.workloads["killed"].began_ns]
    noticed = ("agent_lost", "attempt_failed", "health_changed", "link_lost", "task_requeued")
    assert [each.what for each in met if each.what not in noticed] == ["fault", "mended", "agent_joined"]
    assert (met[0].what, met[0].detail) == ("fault", "kill")
    assert {"agent_lost", "link_lost"} <= {each.what for each in met}
    assert {each.agent for each in met if each.what != "task_requeued"} == {met[0].agent}
    assert cell.processes[met[0].agent].lives == 2
    at = (met[0].at_ns - cell.workloads["killed"].began_ns) / 1e9
    assert at >= 0.5


async def test_a_fault_after_the_end_fails_the_cell(tmp_path: Path, dds_domain: int) -> None:
    workload = {"requests": 3, "warm_up": QUICK, "fault": {"kind": "pause", "at": 50, "lasts": 1}}
    tree = plan_tree(dds_domain, factors={"transport": ["zeromq"]}, workloads={"short": workload})
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert cell.state == "failed"
    assert "before its fault at 50 s: let it last longer" in cell.reason


@pytest.mark.skipif(bool(unavailable()), reason=f"missing: what emulates a network: {unavailable()}")
@pytest.mark.parametrize("transport", ["http", "grpc", "zeromq"])
async def test_a_partition_loses_the_agents_and_ends(tmp_path: Path, dds_domain: int, transport: str) -> None:
    # Tokens are under way when the network is cut, and it is back soon: what comes late must not bring the agent back.
    # On a busy machine it takes longer to see that they are gone.
    fault = {"kind": "partition", "at": 0.5, "lasts": 1.25 * FACTOR}
    workload = {
        "seconds": 0.5 + 2.5 * FACTOR,
        "arrivals": {"kind": "poisson", "rate": 40},
        "warm_up": QUICK,
        "fault": fault,
    }
    factors = {"transport": [transport]}
    tree = plan_tree(dds_domain, factors=factors, network={"delay_ms": 3}, workloads={"cut": workload})
    tree["system"]["engine"] = {"name": "synthetic", "length": 64, "ttft": 5, "itl": 2}
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert cell.state == "completed", cell.reason
    met = [each for each in cell.events if each.at_ns >= cell.workloads["cut"].began_ns]
    assert [each.what for each in met if each.what in ("fault", "agent_lost", "mended", "agent_joined")] == [
        "fault",
        "agent_lost",
        "mended",
        "agent_joined",
    ]
    assert json.loads((tmp_path / "cell/link.json").read_text())["measured"]["faults"] == []
