"""A command imports what it uses: drawing, and the slow parts of SciPy, are left to those that need them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml
from tests.experiment.fabricated import fabricate, finished, plan_of
from tests.patience import PATIENCE

SLOW = ("matplotlib", "scipy.signal", "scipy.stats")
CODE = f"""
import sys
from anywire_experiment.cli import app
for command in {{commands!r}}:
    assert not app(command, standalone_mode=False), command
    print(command[0], *[each for each in {SLOW!r} if each in sys.modules], file=sys.stderr)
"""


def test_only_what_draws_imports_what_draws_and_nothing_the_slow_parts_of_scipy(tmp_path: Path) -> None:
    tree = plan_of(blocks=16, workloads={"one-client": {"requests": 20}}, metrics=["latency"])
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(tree))
    plan, record = str(tmp_path / "plan.yaml"), str(finished(fabricate(tmp_path / "record", tree)))
    commands = [
        ["plan", plan],
        ["plan", plan, "--dry-run"],
        ["compare", record, "--fail-if", "slower > 90 %"],
        ["verify", record],
    ]
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(commands=commands)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.splitlines() == ["plan", "plan", "compare", "verify matplotlib"]
