"""``anywire agents admit`` and ``revoke``: who is let in over transports whose links are known by keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.test_cli import start
from typer.testing import CliRunner

from anywire.cli import app
from anywire.identities.identity_proof import Identity
from reserved import free_port

__all__ = ["start"]  # a fixture

pytestmark = pytest.mark.timeout(120)

FINGERPRINT = "SHA256:" + "A" * 43


def transports() -> dict[str, Any]:
    """Three at once: one identity is all that is configured for them."""
    found: dict[str, Any] = {}
    for name, scheme in (("zeromq", "tcp://"), ("grpc", ""), ("http", "http://")):
        found[name] = {f"{plane}_addresses": [f"{scheme}127.0.0.1:{free_port()}"] for plane in ("agent", "client")}
    return found


def test_an_agent_is_let_in_when_it_is_admitted_and_out_when_it_is_revoked(start: Any, tmp_path: Path) -> None:
    shared = transports()

    def config(name: str, **identity: str) -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"transports": shared, "identity": identity}))
        return str(path)

    admitted = str(tmp_path / "admitted.json")
    serving = config("serve", key=str(tmp_path / "serve.pem"), admitted=admitted)
    joining = config("agent", key=str(tmp_path / "agent.pem"), admitted=str(tmp_path / "hubs.json"))
    serve = start("serve", "--port", "0", "--config", serving)
    own = Identity.from_file(tmp_path / "serve.pem").fingerprint
    assert cli("admit", own, "--role", "orchestrator", "--config", joining).exit_code == 0

    agent = start("agent", "--engine", "synthetic", "--agent-id", "robot", "--config", joining)
    agent.wait_for("run `anywire agents admit")
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    said = re.findall(r"run `anywire agents admit (SHA256:\S+)`", logs[1].read_text())
    print_ = said[0]
    assert print_ == Identity.from_file(tmp_path / "agent.pem").fingerprint
    shown = cli("--url", serve.url).output
    assert (print_ in shown, "robot" in shown, "No agent has joined" in shown) == (True, True, True), shown

    assert "counts with" not in cli("admit", print_, "--config", serving).output
    serve.wait_for("agent robot joined")
    [found] = json.loads(cli("--json", "--url", serve.url).output)
    assert found["id"] == "robot"

    assert cli("revoke", print_, "--config", serving).exit_code == 0
    serve.wait_for("it is not let in any more")
    assert json.loads(cli("--json", "--url", serve.url).output) == []
    assert not any("PRIVATE KEY" in log.read_text() for log in logs)


def cli(*words: str) -> Any:
    return CliRunner().invoke(app, ["agents", *words])


def test_a_file_of_admitted_ends_is_made_listed_and_changed(tmp_path: Path) -> None:
    file = ("--file", str(tmp_path / "admitted.json"))
    done = cli("admit", FINGERPRINT, "--id", "a", "--id", "b", *file)
    assert (done.exit_code, "it counts with `identity.admitted:" in done.output) == (0, True)
    assert (tmp_path / "admitted.json").stat().st_mode & 0o777 == 0o600
    [found] = json.loads(cli("list", "--json", *file).output)
    assert (found["fingerprint"], found["role"], found["fixed"]) == (FINGERPRINT, "agent", True)
    assert found["ids"] == ["a", "b"]
    assert "a, b alone" in cli("list", *file).output
    assert cli("admit", FINGERPRINT, "--role", "orchestrator", *file).exit_code == 0
    assert cli("revoke", FINGERPRINT, *file).exit_code == 0
    assert "is not admitted in" in str(cli("revoke", FINGERPRINT, *file).exception)
    for wrong in (("xyz",), (FINGERPRINT, "--role", "king"), (FINGERPRINT, "--id", "")):
        assert cli("admit", *wrong, *file).exit_code != 0
    [found] = json.loads(cli("list", "--json", *file).output)
    assert (found["fingerprint"], found["ids"], found["revoked"]) == (FINGERPRINT, [], True)
    assert "revoked" in cli("list", *file).output
    assert cli("admit", FINGERPRINT, *file).exit_code == 0
    [found] = json.loads(cli("list", "--json", *file).output)
    assert not found["revoked"]
    (tmp_path / "admitted.json").chmod(0o644)
    assert "run `chmod 600" in str(cli("list", *file).exception)
