"""The table of clients names the versions that are installed to be tried, all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "clients"
ROW = re.compile(
    r"^\| `(?P<name>[^`]+)`(?: \((?P<note>[^)]+)\))? \| (?P<version>\d[\w.]*) \| (?P<tried>.+) \|$", re.MULTILINE
)
HELPERS = frozenset({"axe-core", "zod"})
"""What tests use beside clients."""
OF_THE_WORKSPACE = ("ollama",)
"""Clients that the ordinary tests ask with."""


def requirements() -> str:
    return "\n".join(each.read_text() for each in sorted(CLIENTS.glob("requirements*.txt")))


def test_the_table_of_clients_has_what_is_tried() -> None:
    page = (ROOT / "docs" / "reference" / "compatibility.md").read_text()
    told = {(row["name"], row["version"]) for row in ROW.finditer(page)}
    pinned = re.findall(r"^([\w-]+)(?:\[[\w,-]+\])?==([\w.]+)$", requirements(), flags=re.MULTILINE)
    packages = json.loads((CLIENTS / "package.json").read_text())["dependencies"]
    constraints = dict(re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    installed = {name: version for name, version in packages.items() if name not in HELPERS}
    assert told == {*pinned, *installed.items(), *((name, constraints[name]) for name in OF_THE_WORKSPACE)}


def test_every_client_is_pinned() -> None:
    lines = requirements().splitlines()
    assert [line for line in lines if line and not line.startswith("#") and "==" not in line] == []
    packages = json.loads((CLIENTS / "package.json").read_text())["dependencies"]
    assert [version for version in packages.values() if not version[0].isdigit()] == []
