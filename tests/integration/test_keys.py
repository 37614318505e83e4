"""``anywire keys``: what it makes and prints lets a fleet find together, and nobody else in."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.test_cli import anywire, start

from reserved import free_port

__all__ = ["start"]  # a fixture

pytestmark = pytest.mark.timeout(120)


def test_keys_for_zeromq_are_made_and_used_as_printed(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "some" / "keys"
    done = anywire("keys", "transport", "zeromq", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in folder.iterdir()) == [
        "agent.key",
        "agent.key_secret",
        "hub.key",
        "hub.key_secret",
    ]
    assert all(stat.S_IMODE(each.stat().st_mode) & 0o077 == 0 for each in folder.iterdir())

    addresses = {
        "agent_addresses": f"tcp://127.0.0.1:{free_port()}",
        "client_addresses": f"tcp://127.0.0.1:{free_port()}",
    }
    files = []
    for number, text in enumerate(done.stdout.split("\n\n")):
        config = yaml.safe_load(text)
        config["transports"]["zeromq"] |= addresses
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(yaml.safe_dump(config))
    orchestrator, agents = files
    serve = start("serve", "--port", "0", "--config", str(orchestrator))
    start("agent", "--engine", "synthetic", "--agent-id", "known", "--config", str(agents))
    serve.wait_for("agent known joined")
    other = tmp_path / "other"
    anywire("keys", "transport", "zeromq", "--out", str(other))
    stranger = tmp_path / "stranger.yaml"
    stranger.write_text(agents.read_text().replace(f"{folder}/agent.key_secret", f"{other}/agent.key_secret"))
    start("agent", "--engine", "synthetic", "--agent-id", "stranger", "--config", str(stranger))
    serve.wait_for("is not in allowed_keys")
    found = json.loads(anywire("agents", "--json", "--url", serve.url).stdout)
    assert [each["id"] for each in found] == ["known"]


def test_keys_replace_none_and_are_refused_where_there_are_none(tmp_path: Path) -> None:
    assert anywire("keys", "transport", "zeromq", "--out", str(tmp_path)).returncode == 0
    before = (tmp_path / "hub.key_secret").read_text()
    again = anywire("keys", "transport", "zeromq", "--out", str(tmp_path))
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert (tmp_path / "hub.key_secret").read_text() == before
    memory = anywire("keys", "transport", "memory")
    assert memory.returncode == 1
    assert "has no keys" in memory.stderr
