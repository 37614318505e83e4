"""How servers are configured: by settings, and by the JSON of other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire import secrecy
from anywire.errors import ConfigError
from anywire_engine_mcp.config import InnerEngine, McpConfig
from anywire_engine_mcp.server_config import ServerConfig, filled_in, launched_command, secrets_of
from anywire_engine_mcp.servers_file import MAX_FILE_BYTES, read_servers, read_servers_file


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "set command"),
        ({"command": ["a"], "url": "http://x/mcp"}, "one of the two"),
        ({"command": []}, "set command"),
        ({"command": [""]}, "name of a program"),
        ({"url": "ftp://x"}, "must be an address"),
        ({"url": "http://x", "env": {"A": "b"}}, "env and cwd are for a command"),
        ({"command": "a", "headers": {"A": "b"}}, "headers are for a url"),
        ({"command": "a", "timeout": 0}, "greater than 0"),
        ({"command": "a", "unknown": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_server_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        ServerConfig(**settings)


def test_labels_are_checked() -> None:
    for label in ("a b", "", "a/b", "-a", "x" * 65):
        with pytest.raises(pydantic.ValidationError, match="a label has"):
            McpConfig(servers={label: {"command": ["a"]}})
    assert McpConfig(servers={"a.b_c-1": {"command": "a"}}).servers["a.b_c-1"].command == ("a",)


def test_variables_are_filled_in_and_kept_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "tok-8d21-aaaa-bbbb-9911-x")
    monkeypatch.setenv("PROGRAM", "uvx")
    assert filled_in("a${PROGRAM}${env:PROGRAM}${NONE:-d}$", "x") == "auvxuvxd$"
    with pytest.raises(ConfigError, match=r"servers\.s\.env\.KEY: the environment variable MISSING is not set"):
        secrets_of(ServerConfig(command="a", env={"KEY": "${MISSING}"}), "servers.s")
    config = ServerConfig(command=("${PROGRAM}", "server"), env={"KEY": "${MY_TOKEN}"})
    assert launched_command(config, "s") == ["uvx", "server"]
    assert secrets_of(config, "s") == {"KEY": "tok-8d21-aaaa-bbbb-9911-x"}
    web = ServerConfig(url="http://x/mcp", headers={"a": "1"}, headers_env={"authorization": "MY_TOKEN"})
    assert secrets_of(web, "s") == {"a": "1", "authorization": "tok-8d21-aaaa-bbbb-9911-x"}
    assert "8d21" not in secrecy.without_secrets("it said tok-8d21-aaaa-bbbb-9911-x")
    assert "8d21" not in repr(ServerConfig(command="a", env={"KEY": "tok-8d21-aaaa-bbbb-9911-x"}))


COMMON = {
    "mcpServers": {
        "files": {"command": "npx", "args": ["-y", "server", 5], "env": {"A": "b", "N": 3}, "cwd": "/tmp"},
        "My Server!": {"url": "https://example.org/mcp", "headers": {"Authorization": "Bearer x"}, "timeout": 30000},
        "old": {"type": "sse", "url": "https://example.org/sse"},
        "off": {"command": "a", "disabled": True},
        "empty": {},
        "wrong": {"command": "a", "args": "b"},
        "...": {"command": "a"},
        "My-Server": {"command": "b"},
    }
}


def test_the_common_json_is_read_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    found = read_servers(json.dumps(COMMON))
    assert set(found.servers) == {"files", "My-Server"}
    files, web = found.servers["files"], found.servers["My-Server"]
    assert files.command == ("npx", "-y", "server", "5")
    assert secrets_of(files, "s") == {"A": "b", "N": "3"}
    assert (web.transport, web.timeout) == ("http", 30.0)
    assert found.skipped["old"] == "its transport sse is not spoken here: stdio and streamable HTTP are"
    assert found.skipped["off"] == "it is disabled"
    assert "set command" in found.skipped["empty"]
    assert found.skipped["wrong"] == "args must be a list of texts"
    assert found.skipped["..."] == "no label can be made of its name"
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(COMMON))
    assert read_servers_file(path).servers == found.servers
    with pytest.raises(ConfigError, match="'old': its transport sse"):
        McpConfig(servers_file=path).all_servers()
    path.write_text(json.dumps({"servers": {"files": {"command": "a"}, "more": {"command": "b"}}}))
    with pytest.raises(ConfigError, match=r"^engine.servers_file: .*missing.json cannot be read: No such file"):
        McpConfig(servers_file=tmp_path / "missing.json").all_servers()
    both = McpConfig(servers_file=path, servers={"files": {"command": "mine"}}).all_servers()
    assert {label: config.command for label, config in both.items()} == {"files": ("mine",), "more": ("b",)}


def test_a_file_that_is_no_such_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    with pytest.raises(ConfigError, match="No such file"):
        read_servers_file(path)
    for text, words in (
        ("{", "is no JSON"),
        ("[]", "has no servers"),
        ('{"mcpServers": []}', "has no servers"),
        ('{"mcpServers": {"a": 5}}', "has no servers"),
        ("[" * 100_000, "is no JSON"),
        (" " * (MAX_FILE_BYTES + 1), "is longer than"),
        (json.dumps({"mcpServers": {f"s{number}": {"command": "a"} for number in range(65)}}), "65 servers"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_servers_file(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(["command", "args", "url", "env", "headers", "type", "timeout", "cwd", "autostart", "x"])


@given(st.dictionaries(st.text(max_size=12), st.dictionaries(members, values, max_size=5), max_size=4))
def test_any_json_gives_servers_or_sentences(servers: dict[str, Any]) -> None:
    found = read_servers(json.dumps({"mcpServers": servers}))
    assert len(found.servers) + len(found.skipped) == len(servers)
    assert all(found.skipped.values())


def test_the_inner_engine_is_a_name_or_has_settings() -> None:
    assert McpConfig.model_validate({"inner": "synthetic"}).inner == InnerEngine(name="synthetic")
    with_settings = McpConfig.model_validate({"inner": {"name": "models", "registry": "models.json"}}).inner
    assert with_settings.model_extra == {"registry": "models.json"}
