"""Failure experiments: the faults of the catalogue in a plan, inflicted on real processes, and what is told of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydantic
import pytest
from tests.experiment.fabricated import plan_of
from tests.experiment.real_runs import done, plan_tree, run_cell
from tests.patience import FACTOR, PATIENCE

from anywire.errors import ConfigError
from anywire_experiment import outcome
from anywire_experiment.faults.catalogue import BY_NAME, FAULTS
from anywire_experiment.plan.arms import arms_of
from anywire_experiment.plan.fault_kinds import BY_ITS_CONFIGURATION, KINDS, catalogued
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.record.cells import Cell

pytestmark = pytest.mark.timeout(4 * PATIENCE)

SHIPPED = Path(__file__).parents[2] / "benchmarks/experiments/failures.yaml"
SERVERS = {"stand_in": {"pace": "10 ms"}}
OPENAI = {"name": "openai", "resume": "last_message", "next_token_timeout": 0.3}


def streams(kind: str, **members: Any) -> dict[str, Any]:
    return {
        "seconds": 1.5 + FACTOR / 2,
        "stream": True,
        "max_tokens": 12,
        "arrivals": {"kind": "poisson", "rate": 25},
        "warm_up": {"requests": 6, "limit": 6},
        "fault": {"kind": kind, "at": 0.5, "lasts": 0.5} | members,
    }


def of(cell: Cell, workload: str) -> list[str]:
    """Its events between the fault and its end, with what they tell."""
    told = [each for each in cell.events if each.workload == workload]
    assert [each.detail for each in told if each.what in ("fault", "mended")] == [catalogue_of(workload)] * 2
    return [each.what for each in told]


def catalogue_of(workload: str) -> str:
    return {"killed": "kill", "errors": "500-burst", "silent": "silence", "gone": "refused"}[workload]


def outcomes(folder: Path, workload: str) -> dict[str, int]:
    table = pq.read_table(folder / "samples.parquet").to_pylist()
    seen: dict[str, int] = {}
    for row in table:
        if row["workload"] == workload and row["phase"] == "measured":
            seen[row["outcome"]] = seen.get(row["outcome"], 0) + 1
    return seen


# What a plan may name


def test_a_plan_can_name_every_fault_of_the_catalogue() -> None:
    assert {catalogued(each).name for each in KINDS} | {*BY_ITS_CONFIGURATION} == BY_NAME.keys()
    assert len(KINDS) + len(BY_ITS_CONFIGURATION) == len(FAULTS)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("kil", "did you mean 'kill'"),
        ("agent-killed", "did you mean 'kill'"),
        ("500-bursts", "did you mean '500-burst'"),
        ("cut-without-resuming", "it is `cut-after-k-tokens` with the engine's `resume: never`"),
    ],
)
def test_an_unknown_fault_names_the_nearest(kind: str, said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        Plan.model_validate(plan_of(workloads={"one": streams(kind)}))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (
            {"workloads": {"x": streams("500-burst")}},
            "workload 'x' has a fault of the server behind an agent: set `stand_in`",
        ),
        (
            {"workloads": {"x": streams("500-burst")}, "system": {"engine": "synthetic"}} | SERVERS,
            "stand_in: it needs the engine openai in agents of the cell; in the arm 'zeromq' the engine is synthetic",
        ),
        (
            {"factors": {"transport": ["memory"]}, "system": {"engine": OPENAI}} | SERVERS,
            "in the arm 'memory' the agents are in the orchestrator's own process",
        ),
        ({"workloads": {"x": streams("partition-one-way-to-hub")}}, "cuts the network, and the arm 'zeromq' has none"),
        ({"factors": {"fault": ["none", "kil"]}}, "factors.fault.kind: there is no fault 'kil'"),
        (
            {"factors": {"fault": ["none", {"odd": {"kind": "kill", "att": 1}}]}},
            "unknown key 'factors.fault.att': did you mean 'at'?",
        ),
        ({"factors": {"fault": ["kill"]}, "workloads": {"x": streams("pause")}}, "has a fault of its own; leave one"),
        (
            {"factors": {"fault": [{"late": {"kind": "kill", "at": 9}}]}, "workloads": {"x": {"seconds": 2}}},
            "the fault at 9 s comes after the end of workload 'x' at 2 s",
        ),
        ({"factors": {"fault": ["kill"], "transport": ["memory"]}}, "in the arm 'kill+memory' the agents are in the"),
    ],
)
def test_what_a_fault_lacks_is_told_before_anything_starts(members: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        arms_of(Plan.model_validate(plan_of() | members))
    assert said in str(error.value)


def test_a_factor_has_the_catalogue_for_its_levels() -> None:
    factors = {"fault": ["none", "kill", {"short-pause": {"kind": "pause", "at": 0.2, "lasts": 0.1}}]}
    arms = arms_of(Plan.model_validate(plan_of(factors=factors, workloads={"a": {"seconds": 2}, "b": {"seconds": 3}})))
    assert [each.name for each in arms] == ["none", "kill", "short-pause"]
    assert arms[0].faults == {}
    assert {name: (each.kind, each.at) for name, each in arms[1].faults.items()} == {"a": ("kill", 1), "b": ("kill", 1)}
    assert arms[2].faults["b"].lasts == 0.1


# Real processes


async def test_an_agent_is_killed_and_its_server_fails_in_every_way_it_is_told_to(
    tmp_path: Path, dds_domain: int
) -> None:
    workloads = {name: streams(catalogue_of(name)) for name in ("killed", "errors", "silent", "gone")}
    tree = plan_tree(dds_domain, agents=2, factors={"transport": ["zeromq"]}, workloads=workloads) | SERVERS
    tree["system"]["engine"] = OPENAI
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert cell.state == "completed", cell.reason
    assert {"link_lost", "agent_lost"} <= {*of(cell, "killed")}
    for workload in ("errors", "silent", "gone"):
        assert "attempt_failed" in of(cell, workload), cell.events
        assert "agent_lost" not in of(cell, workload)
    assert any(each.tokens == 10 for each in cell.events if each.workload == "silent")
    for workload in workloads:
        assert outcomes(tmp_path / "cell", workload).keys() == {"ok"}, "the other agent answers"
    assert cell.processes["stand-in"].lives == 1
    assert cell.processes["stand-in"].cpu_seconds > 0


async def test_a_factor_of_faults_gives_verdicts_beside_arms_without(tmp_path: Path, dds_domain: int) -> None:
    """The whole command, two arms and one block: what was inflicted is told, and of the other arm nothing is."""
    path = tmp_path / "plan.yaml"
    workload = streams("kill")
    del workload["fault"]
    tree = plan_tree(dds_domain, agents=2, workloads={"one": workload | {"stream": False, "max_tokens": 1}})
    tree["system"] |= {"transports": "zeromq"}
    tree |= {
        "factors": {"fault": ["none", {"pause": {"kind": "pause", "at": 0.4, "lasts": 0.4}}]},
        "metrics": ["latency", "notice", "recovery", "failures"],
    }
    path.write_text(json.dumps(tree))
    record = tmp_path / "record"
    status, said = await done("run", path, "--out", record)
    assert status == 0, said
    assert outcome.faults(record) == []
    figures = json.loads((record / "results.json").read_text())["figures"]
    without, paused = (next(each for each in figures if each["arm"] == name) for name in ("none", "pause"))
    assert without["fault"] is None
    assert set(without["metrics"]) == {"latency", "failures"}
    assert set(paused["metrics"]) == {"latency", "notice", "recovery", "failures"}
    assert (paused["fault"]["kind"], paused["fault"]["blocks"]) == ("pause", 1)
    assert paused["fault"]["waiting"]["requests"] > 0
    assert "Not answered after 1" in (record / "report.html").read_text()


async def test_the_shipped_plan_runs(tmp_path: Path) -> None:
    """Two blocks of one transport, with two of its faults."""
    record = tmp_path / "record"
    plan = load_plan(SHIPPED)
    assert {each.fault.kind for each in plan.workloads.values() if each.fault} <= {*KINDS}
    changes = [
        "factors.transport=[tcp]",
        "baseline=tcp",
        "workloads.killed.seconds=1.5",
        "workloads.errors.seconds=1.5",
    ]
    options = [part for each in changes for part in ("--set", each)]
    tree = plan.model_dump(mode="json", exclude_unset=True)
    tree["workloads"] = {name: tree["workloads"][name] for name in ("killed", "errors")}
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(tree))
    status, said = await done("run", path, "--out", record, "--set", "blocks=2", *options)
    assert status == 0, said
    results = json.loads((record / "results.json").read_text())
    assert {each["fault"]["kind"] for each in results["figures"]} == {"kill", "500-burst"}
    assert all(each["fault"]["noticed_by"] for each in results["figures"])
    assert all(each["objective"]["requests"] for each in results["figures"])
    assert await asyncio.to_thread(outcome.faults, record) == []
