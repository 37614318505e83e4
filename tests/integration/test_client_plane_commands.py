"""Commands that ask an orchestrator with keys over the client plane: by which key they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_cli import anywire, start
from tests.integration.test_keys_commands import home, keys

from anywire.cli.fleet_records import running_fleets
from anywire.keys.key_text import new_key

__all__ = ["home", "start"]  # fixtures

pytestmark = pytest.mark.timeout(120)

OVER = ("--transport", "zeromq")


def test_commands_over_a_transport_come_in_with_their_key(start: Any, tmp_path: Path) -> None:
    """With this user's own where none is named; no key is in what any of them says."""
    file = tmp_path / "keys.json"
    key = keys("create", "--file", str(file), "--tenant", "lab").stdout.strip()
    stranger = str(new_key())
    up = start("up", "--port", "0", *OVER, "--engine", "synthetic", "--keys", str(file), "--log-level", "debug")
    (record,) = (each for each in running_fleets() if each.url == up.url)

    own = anywire("agents", "--json", *OVER)
    assert own.returncode == 0, own.stderr
    assert '"state": "ready"' in own.stdout
    asked = anywire("chat", "hello", "--max-tokens", "2", *OVER, environment={"ANYWIRE_API_KEY": key})
    assert asked.returncode == 0, asked.stderr
    lesser = anywire("agents", "--json", *OVER, environment={"ANYWIRE_API_KEY": key})
    assert (lesser.returncode, "role use" in lesser.stderr) == (1, True), lesser.stderr
    assert "over HTTP" not in lesser.stderr, "the role is that of the key there, too"
    refused = anywire("chat", "hello", *OVER, environment={"ANYWIRE_API_KEY": stranger})
    assert (refused.returncode, "not known here" in refused.stderr) == (1, True), refused.stderr
    through = anywire("doctor", *OVER)
    assert "went there and back" in through.stdout, through.stdout

    told = (
        up.errors() + up.ready + "".join(each.stdout + each.stderr for each in (own, asked, lesser, refused, through))
    )
    for secret in (key, record.key, stranger):
        assert secret.split("-", 2)[-1] not in told
