"""What may import what inside of the distribution, as its docstring says."""

from __future__ import annotations

import ast
from pathlib import Path

import anywire_experiment

PACKAGE = Path(anywire_experiment.__file__).parent
MAY = {
    "plan": {"exercises", "faults"},
    "exercises": set(),
    "faults": set(),
    "capture": {"plan"},
    "mock_engine": set(),
    "statistics": {"plan.balance"},
    "network": {"plan", "load.timerfd"},
    "record": {"plan"},
    "energy": {"record"},
    "load": {"plan", "exercises", "record", "statistics"},
    "run": {"plan", "energy", "faults", "load", "network", "record", "statistics"},
    "analysis": {"plan", "record", "statistics"},
    "report": {"plan", "analysis", "record", "statistics"},
    "fault_table": {"plan", "faults", "network", "record", "run"},
    "outcome": {"plan", "analysis", "fault_table", "record", "report"},
    "frames": {"analysis", "outcome", "record", "statistics"},
    "exports": {"analysis", "frames", "outcome", "record", "report"},
    "gate": {"plan", "analysis", "outcome", "record", "statistics"},
    "dry_run": {"plan", "analysis", "energy", "network", "outcome", "record", "run", "statistics"},
    "cli": {"plan", "analysis", "dry_run", "exports", "fault_table", "gate", "outcome", "record", "report", "run"},
}


def test_each_part_imports_what_it_may_and_nothing_else() -> None:
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        part = inside.parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
                for alias in node.names:
                    found = ".".join([*node.module.split(".")[1:], alias.name])
                    assert any(f"{found}.".startswith(f"{may}.") for may in MAY[part] | {part}), f"{inside}: {found}"
