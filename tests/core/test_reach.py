"""What may be open to other machines: clients need keys there, or the configuration says that they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anywire.config import Config
from anywire.errors import ConfigError
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.roles import assembly
from anywire.roles.beyond_machine import open_to_agents
from anywire.roles.orchestrator_role import OrchestratorRole
from anywire_zeromq.config import public_key, shared_key

ALONE: dict[str, Any] = {"transports": {"memory": {"network": "test-reach"}}, "engine": "synthetic", "gateways": []}
JWT = {"issuer": "https://id.example.org", "audience": "anywire"}
OPEN = [
    ({"gateways": "openai", "server": {"host": "0.0.0.0"}}, "the gateway openai"),
    ({"gateways": "openai", "server": {"host": "::"}}, "the gateway openai"),
    ({"gateways": "openai", "server": {"host": "robot.local"}}, "the gateway openai"),
    ({"gateways": {"predecessor": {"host": "10.0.0.1"}}}, "the gateway predecessor"),
    ({"gateways": {"predecessor": {"dds": {"interface": "eth0"}}}}, "the gateway predecessor"),
    ({"gateways": {"llama_dds": {"interface": "auto"}}}, "the gateway llama_dds"),
    ({"transports": {"dds": {"interface": "auto"}}}, "the client plane over dds"),
    ({"transports": {"zeromq": {"client_addresses": "tcp://0.0.0.0:5561"}}}, "the client plane over zeromq"),
    ({"transports": {"http": {"client_addresses": "http://10.0.0.1:1"}}}, "the client plane over http"),
    ({"transports": {"grpc": {"client_addresses": "10.0.0.1:1", "token": "x" * 32}}}, "the client plane over grpc"),
]


def made(sections: dict[str, Any]) -> OrchestratorRole:
    config = Config.model_validate({**ALONE, **sections})
    return OrchestratorRole(config, assembly.load_plugins(config))


@pytest.fixture(autouse=True)
def no_cyclone_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CYCLONEDDS_URI", raising=False)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    add_key(path, record_of(new_key()))
    return path


@pytest.mark.parametrize(("sections", "what"), OPEN)
async def test_what_other_machines_reach_needs_keys_or_the_word_of_the_user(
    sections: dict[str, Any], what: str, keys: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        made(sections)
    told = str(caught.value)
    assert f"other machines can reach {what}, and no client needs a key" in told
    for way in ("anywire keys create", "--keys", "access.jwt", "server.tls.client_ca", "access.insecure=true"):
        assert way in told
    for access in ({"keys": str(keys)}, {"insecure": True}, {"jwt": JWT}):
        made(sections | {"access": access})


@pytest.mark.parametrize(
    "sections",
    [
        {"gateways": "openai"},
        {"gateways": "openai", "server": {"host": "", "unix": "/nowhere/socket"}},
        {"gateways": "openai", "server": {"host": "::1"}},
        {"gateways": {"predecessor": {"dds": {}}, "llama_dds": {}}},
        {"transports": ["dds", "zeromq", "http", "grpc"]},
        {"transports": {"dds": {"interface": "auto"}}, "client_plane": False},
        {"transports": {"zeromq": {"agent_addresses": "tcp://0.0.0.0:5560"}}},
        {"transports": {"http": {"agent_addresses": "http://10.0.0.1:1"}}},
        {"transports": {"grpc": {"agent_addresses": "10.0.0.1:1", "token": "x" * 32}}},
    ],
)
async def test_on_this_machine_nobody_needs_a_key(sections: dict[str, Any]) -> None:
    assert not made(sections).access.needs_key


async def test_what_contradicts_itself_is_refused(keys: Path) -> None:
    for access in ({"keys": str(keys)}, {"jwt": JWT}):
        with pytest.raises(ConfigError, match="leave the one or the other out"):
            made({"access": access | {"insecure": True}})


TOKEN = "x" * 32


def curve() -> dict[str, Any]:
    secret = shared_key("test-reach")
    return {"secret_key": secret, "server_key": public_key(secret), "allowed_keys": [public_key(secret)]}


@pytest.mark.parametrize(
    ("transports", "taken"),
    [
        ({"dds": {"interface": "auto"}}, "dds"),
        ({"zeromq": {"agent_addresses": "tcp://0.0.0.0:5560"}}, "zeromq"),
        ({"http": {"agent_addresses": "http://10.0.0.1:1"}}, "http"),
        ({"grpc": {"agent_addresses": "10.0.0.1:1"}}, "grpc"),
        ({"http": {"agent_addresses": "http://10.0.0.1:1"}, "dds": {"interface": "eth0"}}, "http and dds"),
        ({"http": {"agent_addresses": "http://10.0.0.1:1", "token": TOKEN}}, ""),
        ({"grpc": {"agent_addresses": "10.0.0.1:1", "token": TOKEN}}, ""),
        ({"zeromq": {"agent_addresses": "tcp://0.0.0.0:1", **curve()}}, ""),
        ({"zeromq": {"client_addresses": "tcp://0.0.0.0:5561"}}, ""),
        (["dds", "zeromq", "http", "grpc"], ""),
    ],
)
def test_that_any_agent_may_join_from_elsewhere_is_said_unless_agents_are_admitted(
    transports: Any, taken: str, keys: Path, tmp_path: Path
) -> None:
    sections = ALONE | {"transports": transports, "access": {"keys": str(keys)}}
    admitted = {"key": str(tmp_path / "identity.pem"), "admitted": str(tmp_path / "admitted.json")}

    def told(more: dict[str, Any]) -> str:
        config = Config.model_validate(sections | more)
        return open_to_agents(config, assembly.make_transports(config, assembly.load_plugins(config)))

    assert (f"over {taken} from another machine can join as an agent" in told({})) == bool(taken)
    assert bool(told({})) == bool(taken)
    assert bool(told({"identity": {"key": admitted["key"]}})) == bool(taken)
    assert not told({"identity": admitted})
    assert not told({"access": {"insecure": True}})


async def test_an_orchestrator_warns_once_at_its_start_that_any_agent_may_join(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = {"zeromq": {"agent_addresses": "tcp://0.0.0.0:0", "client_addresses": "tcp://127.0.0.1:0"}}
    for transports, times in ((elsewhere, 1), (ALONE["transports"], 0)):
        caplog.clear()
        role = made({"transports": transports, "access": {"keys": str(keys)}})
        try:
            await role.start()
        finally:
            await role.close(0)
        warned = [each.getMessage() for each in caplog.records if each.name == "anywire.roles.orchestrator_role"]
        told = [each for each in warned if "can join as an agent, and is given tasks" in each]
        assert len(told) == times, warned
        assert all("set identity.key and identity.admitted" in each for each in told)
