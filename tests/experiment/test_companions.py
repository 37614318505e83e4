"""The companion processes of an arm: in the cell, in its cost, and a named reason when they end."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.experiment.real_runs import plan_tree, run_cell

from anywire.errors import ConfigError
from anywire_experiment.plan.arms import arms_of, config_of
from anywire_experiment.plan.plan import Plan

pytestmark = pytest.mark.timeout(240)

BROKER = """
import os, pathlib, socket, sys, time
held = bytearray(os.urandom(1 << 20) * 40)
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
while time.process_time() < 0.5: pass
pathlib.Path(sys.argv[3]).write_text(f"{os.getpid()} {server.getsockname()[1]}")
print("the broker is", os.environ["STATE"], flush=True)
sys.stdin.read()
"""


def broker(told: Path, **members: Any) -> dict[str, Any]:
    """A companion that writes its pid and its port to ``told`` once it listens, and ends when it is asked to."""
    return {
        "command": ["{python}", "{folder}/broker.py", "{host}", "{port}", str(told)],
        "files": {"broker.py": BROKER},
        "environment": {"STATE": "listening"},
        "ready": "broker is list",
    } | members


def with_broker(dds_domain: int, companion: dict[str, Any], **members: Any) -> dict[str, Any]:
    return plan_tree(dds_domain, factors={"transport": ["zeromq"]}, companions={"broker": companion}, **members)


async def test_a_companion_is_in_the_cell_its_cost_and_its_record(tmp_path: Path, dds_domain: int) -> None:
    told, seen = tmp_path / "told", []

    def during(what: str) -> None:
        if what == "one: warm-up":
            port = int(told.read_text().split()[1])
            with socket.create_connection(("127.0.0.1", port)):
                seen.append(port)

    cell = await run_cell(with_broker(dds_domain, broker(told)), tmp_path / "cell", dds_domain, during)
    assert (cell.state, cell.reason) == ("completed", "")
    assert len(seen) == 1
    use = cell.processes["broker"]
    assert use.lives == 1
    assert use.cpu_seconds >= 0.5
    assert use.max_rss_bytes > 40 * 2**20
    assert "broker" in cell.workloads["one"].cpu_seconds
    assert not psutil.pid_exists(int(told.read_text().split()[0]))
    kept = json.loads((tmp_path / "cell/companion-broker.json").read_bytes())
    assert kept["command"] == ["{python}", "{folder}/broker.py", "127.0.0.1", str(seen[0]), str(told)]
    assert kept["files"] == {"broker.py": BROKER}
    assert "the broker is listening" in (tmp_path / "cell/logs/broker.log").read_text()
    assert not (tmp_path / "cell/.private").exists()


async def test_a_companion_that_ends_on_its_own_fails_the_cell_by_its_name(tmp_path: Path, dds_domain: int) -> None:
    told = tmp_path / "told"

    def during(what: str) -> None:
        if what == "long: warm-up":
            os.kill(int(told.read_text().split()[0]), 9)

    tree = with_broker(dds_domain, broker(told), workloads={"long": {"seconds": 3600}})
    cell = await run_cell(tree, tmp_path / "cell", dds_domain, during)
    assert cell.state == "failed"
    assert cell.reason.startswith("the companion broker ended on its own during long (killed by SIGKILL)")
    assert [(each.what, each.agent, each.workload) for each in cell.events if each.what == "died"] == [
        ("died", "broker", "long")
    ]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"ready": "never said"}, "never ready: no answer within 5 s; last lines: "),
        ({"command": ["{python}", "-c", "print('no licence'); raise SystemExit(3)"]}, "no licence"),
        ({"command": ["no-such-broker"]}, "no-such-broker cannot be started: No such file or directory"),
    ],
)
async def test_a_companion_that_is_never_ready_says_why(
    tmp_path: Path, dds_domain: int, members: dict[str, Any], said: str
) -> None:
    tree = with_broker(dds_domain, broker(tmp_path / "told", **members), ready_timeout=5)
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert cell.state == "failed"
    assert said in cell.reason
    assert "broker" in cell.reason


async def test_what_a_companion_started_ends_with_it(tmp_path: Path, dds_domain: int) -> None:
    """A child that holds the output of a program that has ended."""
    told = tmp_path / "told"
    script = f"sleep 3600 & echo $! > {told}; echo the broker is listening; exit 4"
    tree = with_broker(dds_domain, broker(told, command=["sh", "-c", script]), workloads={"long": {"seconds": 3600}})
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert cell.state == "failed"
    assert "broker" in cell.reason
    assert "exit status 4" in cell.reason
    child = int(told.read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def plan(**members: Any) -> Plan:
    tree = {"name": "t", "system": {"engine": "synthetic"}, "workloads": {"one": {"requests": 5}}}
    return Plan.model_validate(tree | members)


ADDRESSED = {"zeromq": {"agent_addresses": ["tcp://{broker.host}:{broker.port}"]}}


def test_only_the_arms_that_need_it_have_a_companion_and_its_address() -> None:
    of = {"command": ["nats"], "arms": {"transport": ["brokered"], "agents": [2]}}
    made = arms_of(
        plan(
            companions={"broker": of},
            factors={"transport": ["zeromq", {"brokered": ADDRESSED}], "agents": [2]},
        )
    )
    assert [list(each.companions) for each in made] == [[], ["broker"]]
    found = config_of(made[1], value_of=lambda name, what: {"host": "10.0.0.1", "port": "4222"}[what])
    assert found.transports[0].options["agent_addresses"] == ["tcp://10.0.0.1:4222"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"companions": {"load": {"command": ["x"]}}}, "'load' is the name of a process of every cell"),
        (
            {"companions": {"a": {"command": ["x"], "arms": {"transport": ["tcp"]}}}},
            "no level 'tcp'; there are: zeromq",
        ),
        ({"companions": {"a": {"command": ["x"], "arms": {"network": ["x"]}}}}, "there is no such factor"),
        ({"companions": {"a": {"command": []}}}, "companions.a.command"),
        ({"companions": {"a": {"command": ["x"], "ready": "("}}}, "ready is no regular expression"),
        ({"companions": {"a": {"command": ["x"], "files": {"../up": ""}}}}, "companions.a.files"),
    ],
)
def test_a_companion_that_cannot_be_is_told_in_the_plan(members: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        plan(factors={"transport": ["zeromq"]}, **members)


def test_an_address_of_a_companion_that_an_arm_does_not_have_is_refused() -> None:
    other = {"other": {"command": ["x"]}}
    with pytest.raises(
        ConfigError, match=r"\{broker.host\} names a companion that this arm does not have; it has: other"
    ):
        arms_of(plan(companions=other, factors={"transport": [{"brokered": ADDRESSED}]}))


def test_the_schema_of_a_plan_with_a_companion_survives_yaml() -> None:
    made = plan(companions={"broker": {"command": ["nats", "-p", "{port}"], "ready": "Server is ready"}})
    assert Plan.model_validate(yaml.safe_load(yaml.safe_dump(made.model_dump(mode="json")))) == made
