"""Commands that answer and end: what they print, what they refuse, and with which status."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.finished_commands import commands, commands_end

from reserved import free_port

MEMORY = ["--transport", "memory", "--engine", "synthetic"]
DDS = ["--transport", "dds", "--engine", "synthetic"]

pytestmark = pytest.mark.timeout(120)
__all__ = ["commands_end"]  # a fixture


def anywire(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return commands.finished(arguments, _environment() | (environment or {}))


def _environment() -> dict[str, str]:
    wide = {"COLUMNS": "200", "NO_COLOR": "1"}
    return {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")} | wide


# Errors


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = anywire("up", "--agents", "2", "--port", str(port), *MEMORY)
        assert up.returncode == 1
        assert str(port) in up.stderr
        assert "another process uses it" in up.stderr
        doctor = anywire("doctor", "--port", str(port), *MEMORY, "--json")
        assert doctor.returncode == 1
        (finding,) = [each for each in json.loads(doctor.stdout) if not each["ok"]]
        assert finding["check"] == f"port {port}"
        assert "--port" in finding["remedy"]


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["up", *MEMORY[:3], "nope"], 1, ["error: no engine named 'nope'", "synthetic"]),
        (["up", "--transport", "dsd"], 1, ["error: no transport named 'dsd'", "memory"]),
        (["up", *MEMORY, "--selector", "nope"], 1, ["no selector named 'nope'"]),
        (["up", *MEMORY, "--plugin", "/missing.py"], 1, ["/missing.py", "does not load"]),
        (["up", "--config", "/missing.yaml"], 1, ["there is no config file /missing.yaml"]),
        (["up", *MEMORY, "--log-level", "loud"], 1, ["log_level", "'loud'"]),
        (["up", *MEMORY, "--dds-domain", "3"], 2, ["the transport dds is not used"]),
        (["up", "--agents", "0"], 2, ["--agents"]),
        (["up", "--agentz", "3"], 2, ["--agents"]),
        (["serve", "--transport", "memory"], 1, ["one process only", "anywire up --transport memory"]),
        (["agent", *MEMORY], 1, ["one process only"]),
        (["agent", "--supervised"], 2, ["--supervised"]),
        (["up", *MEMORY, "--set", "transports.dds.domain=3"], 2, ["the transport dds is not used"]),
        (["up", *MEMORY, "--set", "server.port"], 2, ["KEY=VALUE"]),
        (["up", *MEMORY, "--set", "server.port=[1"], 2, ["server.port", "YAML"]),
        (["up", *MEMORY, "--set", "server.host=2026-99-99"], 2, ["server.host", "YAML"]),
        (["up", *MEMORY, "--set", f"server.host={'[' * 3000}{']' * 3000}"], 2, ["server.host", "YAML"]),
        (["agents", "--url", "http://[::"], 1, ["the server at http://[::"]),
        (["up", *MEMORY, "--set", "server.prt=1"], 1, ["unknown key 'server.prt'", "[--set server.prt]"]),
        (["up", *MEMORY, "--set", "srver.port=1"], 1, ["did you mean server.port?"]),
        (["up", *MEMORY, "--set", "agents=[{}]", "--agents", "2"], 1, ["leave --agents out"]),
        (["up", *MEMORY, "--set", "services=nope"], 1, ["no service named 'nope'"]),
        (["up", "--transport", "dds", "--set", "launcher=nope"], 1, ["no launcher named 'nope'", "local"]),
        (["up", "--transport", "dds", "--launcher", "nope"], 1, ["no launcher named 'nope'", "local"]),
        (["up", "--launcher", "local", "--ray-address", "a:1"], 2, ["it is for --launcher ray, not local"]),
        (["up", "--transport", "dds", "--ray-address", "head"], 1, ["launcher.address", "expected HOST:PORT"]),
        (["agents", "--set", "server.port=9", "--host", "127.0.0.1"], 1, ["no server answers at http://127.0.0.1:9"]),
        (["up", "--dds-domain", "231"], 2, ["--dds-domain", "230"]),
        (["chat", "hi", "--url", "http://127.0.0.1:9"], 1, ["no server answers", "anywire up", "--url", "-t NAME"]),
        (["agents", "--url", "http://127.0.0.1:9"], 1, ["no server answers"]),
        (["chat"], 2, ["prompt"]),
        (["nonsense"], 2, ["nonsense"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], code: int, parts: list[str]) -> None:
    done = anywire(*arguments)
    assert done.returncode == code
    assert not done.stdout
    for part in parts:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert code != 1 or len(done.stderr.strip().splitlines()) == 1


def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "anywire.yaml"
    file.write_text("server:\n  prot: 1\n")
    done = anywire("up", "--config", str(file))
    assert done.returncode == 1
    assert "unknown key 'server.prot': did you mean 'port'?" in done.stderr
    assert "anywire.yaml, line 2" in done.stderr
    file.write_text("transports: {memory: {}}\nengine: {name: synthetic, modls: [x]}")
    done = anywire("up", "--config", str(file))
    assert done.returncode == 1
    assert "modls" in done.stderr
    assert "'models'" in done.stderr


# What is there


@pytest.mark.parametrize("mode", [MEMORY, DDS], ids=["memory", "dds"])
def test_demo_shows_an_answer_and_where_its_time_went(mode: list[str]) -> None:
    done = anywire("demo", "What is it?", *mode)
    assert done.returncode == 0, done.stderr
    assert "What is it?" in done.stdout
    for part in ("time to first token", "tokens", "sent → agent_received"):
        assert part in done.stdout
    assert re.search(rf"transport +{mode[1]}\b", done.stdout)
    assert not done.stderr


@pytest.mark.parametrize("mode", [MEMORY, DDS], ids=["memory", "dds"])
def test_doctor_finds_nothing_wrong(mode: list[str], dds_domain: int) -> None:
    domain = ["--dds-domain", str(dds_domain)] if mode is DDS else []
    port = free_port()
    done = anywire("doctor", "--port", str(port), *mode, *domain, "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 0, findings
    assert [each["check"] for each in findings] == [
        "python",
        "plugins",
        f"transport {mode[1]}",
        *([f"orchestrator over {mode[1]}"] if mode is DDS else []),
        "engine synthetic",
        f"port {port}",
    ]
    assert all(each["ok"] for each in findings)


def test_plugins_are_listed_and_one_that_does_not_load_has_a_reason(tmp_path: Path) -> None:
    found = {(each["kind"], each["name"]): each for each in json.loads(anywire("plugins", "--json").stdout)}
    memory = found["transport", "memory"]
    assert memory["distribution"].startswith("anywire ")
    assert memory["capabilities"]["inter_process"] is False
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[anywire.engines]\nbroken = no_such_module:Engine\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    found = {
        (each["kind"], each["name"]): each
        for each in json.loads(anywire("plugins", "--json", environment=environment).stdout)
    }
    broken = found["engine", "broken"]
    assert broken["distribution"] == "broken 1.0"
    assert "no_such_module" in broken["error"]
    table = anywire("plugins", environment=environment).stdout
    assert "no_such_module" in table


def test_config_prints_what_is_in_force_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("transports: memory\nengine: {name: openai, base_url: http://u:pw@h/v1, api_key: verysecret}")
    done = anywire("config", "--config", str(file), "--port", "9", environment={"ANYWIRE_AGENT__SLOTS": "4"})
    assert done.returncode == 0
    assert "verysecret" not in done.stdout
    assert "pw@" not in done.stdout
    assert yaml.safe_load(done.stdout)["server"]["port"] == 9
    assert "slots: 4" in done.stdout
    assert "network: default" in done.stdout, "the transport's own default"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--engine", "synthetic", "--model", "m"], {"engine": {"models": ["m"]}}),
        (["--engine", "llama", "--model", "m"], {"engine": {"model": "m"}}),
        (["--engine", "llama", "--slots", "3"], {"agent": {"slots": 3}}),
        (["--port", "9", "--host", "::1"], {"server": {"host": "::1", "port": 9}}),
        (["--dds-domain", "9"], {"transports": {"dds": {"domain": 9}}}),
        (["--transport", "memory,dds", "--transport", "x"], {"transports": {"x": {}}}),
        (["--scheduler", "fifo", "--selector", "round_robin"], {"selector": {"name": "round_robin"}}),
        (["--agent-id", "a"], {"agent": {"id": "a"}}),
        (["--plugin", "json"], {"plugins": ["json"]}),
        (["--log-level", "DEBUG"], {"log_level": "debug"}),
    ],
)
def test_every_flag_takes_effect(arguments: list[str], expected: dict[str, Any]) -> None:
    done = anywire("config", *arguments)
    assert done.returncode == 0, done.stderr
    assert _holds(yaml.safe_load(done.stdout), expected)


def test_flags_and_environment_win_over_a_configuration_that_was_printed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    printed = yaml.safe_load(anywire("config", *MEMORY).stdout)
    assert printed["log_level"] == "info", "what `config` itself logs is no setting"
    assert not {"host", "port", "max_body_bytes"} & set(printed["gateways"]["openai"]), "it would no longer follow"
    file.write_text(yaml.safe_dump(printed))
    port, flags = free_port(), ["--slots", "3"]
    environment = {"ANYWIRE_SERVER__HOST": "::1"}
    again = yaml.safe_load(
        anywire("config", "--config", str(file), "--port", str(port), *flags, environment=environment).stdout
    )
    assert again == printed | {
        "server": printed["server"] | {"host": "::1", "port": port},
        "agent": printed["agent"] | {"slots": 3},
    }
    doctor = anywire("doctor", "--config", str(file), "--port", str(port), "--json", environment=environment)
    assert f"port {port}" in [each["check"] for each in json.loads(doctor.stdout)], "it is the one that is used"


def test_a_flag_wins_over_an_option_of_the_one_gateway_and_is_refused_for_several(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("transports: memory\ngateways: {openai: {port: 9}}\n")
    done = anywire("config", "--config", str(file), "--port", "8")
    assert yaml.safe_load(done.stdout)["gateways"]["openai"]["port"] == 8
    plugin = tmp_path / "second.py"
    plugin.write_text(SECOND_GATEWAY)
    file.write_text("transports: memory\ngateways: {openai: {port: 9}, second: {port: 10}}\n")
    done = anywire("config", "--config", str(file), "--port", "8", "--plugin", str(plugin))
    assert done.returncode == 1
    assert "--set gateways.openai.port=" in done.stderr


SECOND_GATEWAY = """
from anywire.hookspecs import hookimpl
from anywire_gateway_openai import OpenAIGateway

class Second(OpenAIGateway):
    name = "second"

@hookimpl
def anywire_register(kind):
    return {"second": Second} if kind == "gateways" else None
"""


def test_a_masked_secret_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        anywire(
            "config", "--transport", "memory", "--engine", "openai", "--set", "engine.api_key=verysecret",
            "--set", "engine.base_url=http://127.0.0.1:9/v1",
        ).stdout
    )  # fmt: skip
    done = anywire("up", "--config", str(file))
    assert done.returncode == 1
    assert "engine.api_key is masked" in done.stderr
    assert f"{file}, line" in done.stderr


def _holds(tree: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return all(key in tree and _holds(tree[key], value) for key, value in expected.items())
    return bool(tree == expected)


def test_an_engine_without_models_refuses_one(tmp_path: Path) -> None:
    plugin = tmp_path / "modelless.py"
    plugin.write_text(MODELLESS)
    done = anywire("config", "--plugin", str(plugin), "--engine", "modelless", "--model", "m")
    assert done.returncode == 1
    assert "engine 'modelless' takes no model" in done.stderr


MODELLESS = """
import pydantic
from anywire.hookspecs import hookimpl
from anywire.builtin.synthetic import SyntheticEngine

class Modelless(SyntheticEngine):
    name = "modelless"
    class Config(pydantic.BaseModel):
        pass

@hookimpl
def anywire_register(kind):
    return {"modelless": Modelless} if kind == "engines" else None
"""


def test_version_and_help() -> None:
    assert re.fullmatch(r"anywire \d+\.\d+\.\d+\n", anywire("--version").stdout)
    assert "demo" in anywire("--help").stdout


def test_doctor_tells_what_to_do_when_an_agent_is_not_found(tmp_path: Path) -> None:
    plugin = tmp_path / "deaf.py"
    plugin.write_text(DEAF)
    done = anywire("doctor", "--plugin", str(plugin), "--transport", "deaf", "--engine", "synthetic", "--json")
    assert done.returncode == 1
    finding = next(each for each in json.loads(done.stdout) if each["check"] == "transport deaf")
    assert "did not find each other" in finding["detail"]
    assert "multicast is blocked" in finding["remedy"]


def test_doctor_stays_apart_from_a_running_fleet_where_the_transport_offers_that(tmp_path: Path) -> None:
    plugin = tmp_path / "apart.py"
    plugin.write_text(APART)
    common = ["doctor", "--plugin", str(plugin), "--transport", "apart", "--engine", "synthetic", "--json"]
    for given, network in (([], "free"), (["--set", "transports.apart.network=mine"], "mine")):
        findings = json.loads(anywire(*common, *given).stdout)
        (finding,) = [each for each in findings if each["check"] == "transport apart"]
        assert (finding["ok"], finding["settings"]["network"]) == (True, network)


def test_doctor_logs_a_warning_of_a_transport_once_however_often_it_opens_it(tmp_path: Path) -> None:
    plugin = tmp_path / "warning.py"
    plugin.write_text(WARNING)
    done = anywire("doctor", "--plugin", str(plugin), "--transport", "warning", "--engine", "synthetic")
    assert done.returncode == 0
    assert done.stderr.count("it is open to the network") == 1


WARNING = """
import logging

from anywire.hookspecs import hookimpl
from anywire.builtin.memory import MemoryTransport

class Warning(MemoryTransport):
    name = "warning"

    async def open_hub(self, hub, plane, sink):
        logging.getLogger("warning").warning("it is open to the network")
        return await super().open_hub(hub, plane, sink)

    async def open_agent(self, info, plane, sink):
        logging.getLogger("warning").warning("it is open to the network")
        return await super().open_agent(info, plane, sink)

@hookimpl
def anywire_register(kind):
    return {"warning": Warning} if kind == "transports" else None
"""


APART = """
from anywire.hookspecs import hookimpl
from anywire.builtin.memory import MemoryTransport

class Apart(MemoryTransport):
    name = "apart"

    @classmethod
    def free_options(cls, options):
        return {} if "network" in options else {"network": "free"}

@hookimpl
def anywire_register(kind):
    return {"apart": Apart} if kind == "transports" else None
"""


DEAF = """
from anywire.hookspecs import hookimpl
from anywire.builtin.memory import MemoryTransport
from anywire.transport import Capabilities

class Deaf(MemoryTransport):
    name = "deaf"
    capabilities = Capabilities(liveliness="native", discovery="native")

@hookimpl
def anywire_register(kind):
    return {"deaf": Deaf} if kind == "transports" else None
"""
