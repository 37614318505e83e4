"""Real runs of small plans: the command, and one cell by itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml
from tests.patience import FACTOR

from anywire_experiment.plan.arms import arms_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record.cells import Cell, read_cell
from anywire_experiment.run.cell import CellRun

QUICK = {"requests": 3, "limit": 3}
ONE = {"requests": 6, "warm_up": QUICK}
STREAMS = {"requests": 12, "stream": True, "arrivals": {"kind": "closed", "clients": 3}, "warm_up": QUICK}
PATIENCE = 180.0 * FACTOR


def plan_tree(dds_domain: int, **members: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "blocks": 1,
        "system": {
            "engine": "synthetic",
            "agent": {"slots": 8},
            "transports": {"dds": {"domain": dds_domain}},
            "log_level": "warning",
        },
        "workloads": {"one": ONE},
    } | members


def written(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


@asynccontextmanager
async def experiment(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """``anywire experiment ARGUMENTS``, of which nothing is left afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "experiment", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def done(*arguments: str | Path) -> tuple[int, str]:
    """Its exit status and what it said."""
    async with experiment(*arguments) as process, asyncio.timeout(PATIENCE):
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()


async def run_cell(
    tree: dict[str, Any], folder: Path, domain: int, during: Callable[[str], None] = lambda what: None
) -> Cell:
    """One cell of a plan's only arm; ``during`` is told what it does just now."""
    plan = Plan.model_validate(tree)
    (arm,) = arms_of(plan)
    async with asyncio.timeout(PATIENCE):
        cell = await CellRun(plan, arm, 1, 0, folder, domain, during).run()
    assert read_cell(folder) == cell
    assert not [each for each in psutil.Process().children(recursive=True) if "anywire" in " ".join(each.cmdline())]
    return cell
