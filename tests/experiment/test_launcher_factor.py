"""The launcher as a factor of a plan: what starts the agents of an arm."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from tests.experiment.real_runs import plan_tree, run_cell

from anywire.errors import ConfigError
from anywire_experiment.plan.arms import arms_of, config_of, starts_its_agents
from anywire_experiment.plan.plan import Plan

WORKLOADS = {"one": {"requests": 1}}


def plan(**members: Any) -> Plan:
    tree: dict[str, Any] = {"name": "t", "system": {"engine": "synthetic"}, "workloads": WORKLOADS}
    return Plan.model_validate(tree | members)


def test_a_level_is_a_launcher_with_its_options() -> None:
    levels = ["local", "nice", {"nicest": {"name": "nice", "niceness": 19}}]
    arms = arms_of(plan(factors={"transport": ["zeromq"], "launcher": levels}))
    assert [each.name for each in arms] == ["zeromq+local", "zeromq+nice", "zeromq+nicest"]
    assert [config_of(each).launcher.options for each in arms] == [{}, {}, {"niceness": 19}]
    assert all(starts_its_agents(each) for each in arms), "one is started like the other"
    (grown,) = arms_of(plan(factors={"transport": ["zeromq"], "launcher": ["local"], "on_demand.most": [2]}))
    assert config_of(grown).on_demand.most == 2
    (bare,) = arms_of(plan(factors={"transport": ["zeromq"]}))
    assert not starts_its_agents(bare), "without a launcher the cell starts them"


def test_a_launcher_of_the_system_and_an_option_as_a_factor() -> None:
    system = {"engine": "synthetic", "launcher": "nice", "transports": "zeromq"}
    arms = arms_of(plan(system=system, factors={"launcher.niceness": [1, 5]}))
    assert [config_of(each).launcher.options for each in arms] == [{"niceness": 1}, {"niceness": 5}]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"factors": {"launcher": ["nope"]}}, "no launcher named 'nope'; known: local"),
        ({"factors": {"launcher": [{"x": {"name": "nice", "niceness": 99}}]}}, "launcher.niceness"),
        ({"factors": {"launcher": ["local"], "transport": ["memory"]}}, "where no launcher is used"),
        ({"factors": {"launcher": ["local"]}, "network": {"delay_ms": 1}}, "with `network` they are on another"),
        ({"factors": {"on_demand.most": [2], "transport": ["zeromq"]}}, "add `launcher: local` to `system`"),
        (
            {"factors": {"launcher": ["local"]}, "workloads": {"x": {"seconds": 5, "fault": {"kind": "kill"}}}},
            "the agents are started by a launcher: leave that level out",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(members: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        arms_of(plan(**members))
    assert said in str(caught.value)


def of_agents() -> list[int]:
    """How nice the agents are that this process has started somewhere below."""
    family = psutil.Process().children(recursive=True)
    found = []
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.cmdline()[1:] == ["-m", "anywire.roles.process", "agent"]:
                found.append(each.nice())
    return found


@pytest.mark.parametrize(("launcher", "more"), [("local", 0), ("nice", 10)])
async def test_the_launcher_of_an_arm_starts_its_agents(
    launcher: str, more: int, tmp_path: Path, dds_domain: int
) -> None:
    tree = plan_tree(dds_domain, agents=2, factors={"transport": ["zeromq"], "launcher": [launcher]})
    seen: list[list[int]] = []

    def during(what: str) -> None:
        if what.endswith("measuring"):
            seen.append(of_agents())

    own = psutil.Process().nice()
    cell = await run_cell(tree, tmp_path / "cell", dds_domain, during)
    assert cell.state == "completed", cell.reason
    assert seen == [[min(19, own + more)] * 2]
    assert sorted(cell.processes) == ["load", "orchestrator"]
    assert [(each.what, each.agent) for each in cell.events] == [("agent_joined", each.agent) for each in cell.events]
    assert sorted(each.agent for each in cell.events) == ["agent-1", "agent-2"]
    assert cell.processes["orchestrator"].exit == "exit status 0"
    written = yaml.safe_load((tmp_path / "cell" / "config-orchestrator.yaml").read_text())
    assert written["launcher"]["name"] == launcher
    rows = pq.read_table(tmp_path / "cell" / "samples.parquet")
    for row in rows.to_pylist():
        assert (row["outcome"], row["transport"]) == ("ok", "zeromq")
        assert row["sent_ns"] <= row["stage_sent_ns"] <= row["done_ns"], "the orchestrator alone has recorded it"
