"""What a plan says of systems: Anywire in some form, another program, or what is already there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from anywire.errors import ConfigError
from anywire_experiment.plan.arms import Arm, arms_of, config_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.systems import ForeignSystem
from anywire_experiment.record.programs import program_found
from anywire_experiment.record.provenance import code_cautions
from anywire_experiment.record.sources import sources_of
from anywire_experiment.run.availability import available
from anywire_experiment.run.expectations import expectations
from anywire_experiment.statistics import FEWEST_BLOCKS

ENGINE = {"command": ["{python}", "-m", "anywire_experiment.mock_engine", "--port", "{port}"], "shared": True}
DIRECT = {"direct": {"base_url": "http://{engine.host}:{engine.port}"}}
OURS = {"ours": {"config": {"transports": "zeromq"}}}
PROXY = {
    "proxy": {
        "command": ["{python}", "{folder}/proxy.py", "{engine.port}", "{port}"],
        "files": {"proxy.py": "…"},
        "base_url": "http://{host}:{port}",
        "ready": {"url": "/health"},
    }
}


def plan(*systems: dict[str, Any], **members: Any) -> Plan:
    tree: dict[str, Any] = {
        "name": "t",
        "system": {"engine": {"name": "openai", "base_url": "http://{engine.host}:{engine.port}/v1"}},
        "companions": {"engine": ENGINE},
        "factors": {"system": list(systems)},
        "workloads": {"one": {"requests": 20}},
    }
    return Plan.model_validate(tree | members)


def test_arms_are_anywire_another_program_or_what_is_there() -> None:
    ours, proxy, direct = arms_of(plan(OURS, PROXY, DIRECT))
    assert (ours.name, ours.foreign, ours.transports, ours.agents) == ("ours", None, ["zeromq"], 1)
    assert config_of(ours).engine.options["base_url"] == "http://127.0.0.1:20000/v1"
    assert (proxy.transports, proxy.agents, list(proxy.companions)) == ([], 0, ["engine"])
    assert proxy.foreign is not None
    assert proxy.foreign.program is not None
    assert proxy.foreign.program.ports() == {"port"}
    assert direct.foreign is not None
    assert direct.foreign.program is None
    assert expectations(plan(OURS, PROXY, DIRECT, blocks=FEWEST_BLOCKS), [ours, proxy, direct]) == []
    with pytest.raises(ConfigError, match="this system is not Anywire's"):
        config_of(proxy)


def test_a_level_is_over_what_all_of_anywire_have() -> None:
    given: list[dict[str, Any]] = [
        {"one": {"config": {"selector": "round_robin", "agent": {"slots": 2}}, "agents": 3}},
        {"two": {"config": {"transports": {"http": {"token": "x"}}, "scheduler": {"name": "fifo"}}}},
    ]
    system = {"engine": "synthetic", "transports": "zeromq", "agent": {"slots": 9, "queue": 5}}
    one, two = arms_of(plan(*given, system=system, companions={}))
    assert (one.agents, two.agents) == (3, 1)
    assert (config_of(one).agent.slots, config_of(two).agent.slots) == (2, 9)
    assert config_of(one).agent.queue == 5
    assert [one.transports, two.transports] == [["zeromq"], ["http"]]
    assert config_of(one).selector.name == "round_robin"


def test_a_system_has_companions_of_its_own() -> None:
    database = {"command": ["{python}"], "environment": {"ENGINE": "{engine.port}"}}
    with_database = {"proxy": PROXY["proxy"] | {"companions": {"database": database}}}
    proxy, direct = arms_of(plan(with_database, DIRECT))
    assert list(proxy.companions) == ["engine", "database"]
    assert list(direct.companions) == ["engine"]


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ({"a": "nginx"}, "factors.system.a: a system is a mapping with `config` or `revision`"),
        ({"a": {}}, "this has neither"),
        ({"a": {"config": {}, "base_url": "http://x"}}, "this has both 'config' and 'base_url'"),
        ({"a": {"command": ["x"]}}, "factors.system.a.base_url: Field required"),
        ({"a": {"base_url": "ftp://x"}}, "expected http://HOST:PORT"),
        ({"a": {"base_url": "http://"}}, "expected http://HOST:PORT"),
        ({"a": {"base_url": "http://[x"}}, "expected http://HOST:PORT"),
        ({"a": {"base_url": "http://x:99999"}}, "expected http://HOST:PORT"),
        ({"a": {"base_url": "http://x:port"}}, "expected http://HOST:PORT"),
        ({"a": {"base_url": "http://x y:80"}}, "expected http://HOST:PORT"),
        ({"a": {"base_url": "http://x:80/\r\na"}}, "expected http://HOST:PORT"),
        ({"a": {"base_url": "http://x", "command": [""]}}, "the first of `command` is empty"),
        ({"a": {"base_url": "http://x", "command": ["x", "\0"]}}, r"factors.system.a.command.1"),
        ({"a": {"base_url": "http://x", "command": ["x"], "environment": {"A=B": ""}}}, "factors.system.a.environment"),
        ({"a": {"base_url": "http://x", "command": ["x"], "environment": {"A": "\0"}}}, "factors.system.a.environment"),
        ({"a": {"base_url": "http://{host}:{port}"}}, r"there is no \{host\}; name a companion"),
        ({"a": {"base_url": "http://{folder}", "command": ["x"]}}, r"\{folder\} is of commands and files alone"),
        ({"a": {"base_url": "http://x", "files": {"a": "b"}}}, "files: nothing is started without a `command`"),
        ({"a": {"base_url": "http://x", "comand": ["x"]}}, "did you mean 'command'"),
        ({"a": {"base_url": "http://x", "command": ["x"], "files": {"../up": ""}}}, "files"),
        ({"a": {"base_url": "http://x", "command": ["x"], "ready": "("}}, "ready is no regular expression"),
        ({"a": {"base_url": "http://x", "headers": {"a b": "c"}}}, "factors.system.a.headers"),
        ({"a": {"base_url": "http://x", "headers": {"a": "b\r\nc: d"}}}, "factors.system.a.headers"),
        ({"a": {"base_url": "http://{other.host}"}}, r"\{other.host\} names a companion that this arm does not have"),
        ({"a": {"base_url": "http://x", "command": ["x", "{other.port}"]}}, "this arm does not have; it has: engine"),
        ({"a": {"base_url": "http://x", "companions": {"engine": ENGINE}}}, "the plan has a companion 'engine' too"),
        ({"a": {"base_url": "http://x", "companions": {"load": ENGINE}}}, "'load' is the name of a process"),
        (
            {"a": {"base_url": "http://x", "companions": {"b": ENGINE | {"arms": {"system": ["a"]}}}}},
            "it is of this system alone; leave `arms` out",
        ),
        ({"a": {"config": {"server": {"port": 1}}}}, "factors.system.a.config.server: the experiment settles this"),
        ({"a": {"config": {"agents": 2}}}, "factors.system.a.config.agents: the experiment settles this"),
        ({"a": {"config": {"transports": "nope"}}}, "no transport named 'nope'"),
        ({"a": {"config": {}, "repository": "/x"}}, "repository: say which `revision` of it"),
        ({"a": {"config": {}, "agents": 0}}, "factors.system.a.agents"),
    ],
)
def test_a_system_that_cannot_be_is_told_before_anything_starts(system: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arms_of(plan(system))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"network": {"delay_ms": 1}}, "`network` lies between Anywire's orchestrator and its agents"),
        ({"metrics": ["latency", "wait"]}, "the metric wait is told by Anywire alone"),
        ({"workloads": {"one": {"requests": 20, "through": "client_plane"}}}, "which only Anywire has"),
        ({"workloads": {"one": {"seconds": 9, "fault": {"kind": "kill"}}}}, "has a fault of Anywire's agents"),
        ({"factors": {"system": [DIRECT], "transport": ["dds"]}}, "the factor 'transport' is of Anywire"),
        ({"factors": {"system": [DIRECT], "agents": [1, 2]}}, "the factor 'agents' is of Anywire"),
    ],
)
def test_what_only_anywire_has_is_not_asked_of_another_system(members: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arms_of(plan(DIRECT, **members))


def test_requests_are_a_factor_of_any_system() -> None:
    factors = {"system": [OURS, DIRECT], "request.temperature": [0, 1]}
    made = arms_of(plan(factors=factors))
    assert [each.name for each in made] == ["ours+0", "ours+1", "direct+0", "direct+1"]
    assert made[3].request == {"temperature": 1}


def test_a_plan_with_systems_survives_yaml() -> None:
    made = plan(OURS, PROXY, DIRECT)
    again = Plan.model_validate(yaml.safe_load(yaml.safe_dump(made.model_dump(mode="json"))))
    assert again == made
    assert arms_of(again) == arms_of(made)


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.say, self.warned = self.lines.append, self.warnings.append


MISSING = {"other": {"base_url": "http://{host}:{port}", "command": ["no-such-gateway", "{port}"]}}


def test_a_program_that_is_missing_is_refused_or_left_out_with_a_word() -> None:
    with pytest.raises(ConfigError, match="the arm other cannot be run: there is no program 'no-such-gateway' here"):
        available(plan(OURS, MISSING), Told())
    optional = {"other": MISSING["other"] | {"optional": True}}
    of = ENGINE | {"arms": {"system": ["ours", "other"]}}
    alone = ENGINE | {"arms": {"system": ["other"]}}
    told = Told()
    left, arms, left_out = available(plan(OURS, optional, companions={"engine": of, "beside": alone}), told)
    assert [each.name for each in arms] == ["ours"]
    assert [each.label for each in left.factors["system"]] == ["ours"]
    assert left.companions["engine"].arms == {"system": ("ours",)}
    assert list(left.companions) == ["engine"]
    assert Plan.model_validate(left.model_dump(mode="json")) == left
    assert list(left_out) == ["other"]
    assert told.warnings == [f"the system other is left out: {left_out['other']}"]


@pytest.mark.parametrize(
    ("systems", "members", "said"),
    [
        ((OURS,), {"baseline": "other"}, "the system other is the one that others are compared with"),
        ((), {}, "no system of this plan can be run here: other"),
    ],
)
def test_too_little_left_is_refused(systems: tuple[dict[str, Any], ...], members: dict[str, Any], said: str) -> None:
    optional = {"other": MISSING["other"] | {"optional": True}}
    with pytest.raises(ConfigError, match=said):
        available(plan(*systems, optional, **members), Told())


def test_a_missing_companion_of_a_system_leaves_it_out() -> None:
    database = {"command": ["no-such-database"]}
    system = {"proxy": PROXY["proxy"] | {"optional": True, "companions": {"database": database}}}
    _, arms, left_out = available(plan(OURS, system), Told())
    assert [each.name for each in arms] == ["ours"]
    assert left_out["proxy"].startswith("companion database: there is no program 'no-such-database' here")


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ({"there": {"base_url": "http://10.0.0.1:8000"}}, "the system there is no process of its cells"),
        (
            {"ours": {"config": {"engine": {"name": "openai", "base_url": "http://10.0.0.1:8000/v1"}}}},
            "the engine of ours asks a server that is no process of its cells",
        ),
    ],
)
def test_what_is_no_process_of_a_cell_is_told(system: dict[str, Any], said: str) -> None:
    made = plan(system, DIRECT, blocks=FEWEST_BLOCKS)
    (told,) = expectations(made, arms_of(made))
    assert told == f"{said}: what it costs is not counted, and it is not started afresh: name it in `companions`"


def foreign(arm: Arm) -> ForeignSystem:
    assert arm.foreign is not None
    return arm.foreign


def test_a_program_is_told_by_its_package_its_version_or_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = tmp_path / "env"
    information = environment / "lib/python3.11/site-packages/router-1.2.dist-info"
    (environment / "bin").mkdir(parents=True)
    information.mkdir(parents=True)
    program = environment / "bin/router"
    program.write_text("#!/bin/sh\necho router, first line; echo second\n")
    program.chmod(0o755)
    system = {"a": {"base_url": "http://x", "command": ["router"], "search": ["$ROUTERS/bin"]}}
    with pytest.raises(ConfigError, match=r"\$ROUTERS/bin names a variable that is not set"):
        sources_of(arms_of(plan(system)))
    monkeypatch.setenv("ROUTERS", str(environment))
    found = sources_of(arms_of(plan(system)))["system a"]
    assert (found.distribution, found.version, found.module, found.files) == ("", "", "router", 1)
    (information / "RECORD").write_text("../../../bin/router,,\nrouter/main.py,,\n")
    found = sources_of(arms_of(plan(system)))["system a"]
    assert (found.distribution, found.version, found.files) == ("router", "1.2", 2)
    assert "router 1.2, 2 files" in str(found)
    (information / "RECORD").write_text("other/bin/router,,\n")
    (arm,) = arms_of(plan({"a": system["a"] | {"version": ["router", "--version"]}}))
    program_of = foreign(arm).program
    assert program_of is not None
    assert program_found("here", program_of).version == "router, first line"


def test_a_script_that_the_plan_has_is_told_by_the_plans_files() -> None:
    """The record keeps the plan: nobody has to wonder what code it was."""
    found = sources_of(arms_of(plan(PROXY)))["system proxy"]
    assert (found.module, found.files) == ("proxy.py", 1)
    other = {"proxy": PROXY["proxy"] | {"files": {"proxy.py": "other"}}}
    assert found.sha256 != sources_of(arms_of(plan(other)))["system proxy"].sha256
    assert not list(code_cautions("", "clean", {"system proxy": found}))


def test_a_module_of_this_interpreter_is_told_by_its_package() -> None:
    found = sources_of(arms_of(plan(DIRECT)))["companion engine"]
    assert (found.module, found.distribution) == ("anywire_experiment.mock_engine", "anywire-experiment")
    assert found.files > 1
