"""The launcher ``ray`` as a level of a plan's factor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="missing: Ray (tests/system/install.sh)")

import pyarrow.parquet as pq
from tests.experiment.real_runs import plan_tree, run_cell
from tests.system.own_network import own_network
from tests.system.ray_nodes import nothing_left

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with own_network(), nothing_left():
        yield


async def test_agents_of_an_arm_are_actors(tmp_path: Path) -> None:
    levels = ["ray"]
    tree = plan_tree(0, agents=2, factors={"transport": ["zeromq"], "launcher": levels})
    cell = await run_cell(tree, tmp_path / "cell", 0)
    assert cell.state == "completed", cell.reason
    assert {each.agent for each in cell.events} == {"agent-1", "agent-2"}
    rows = pq.read_table(tmp_path / "cell" / "samples.parquet").to_pylist()
    assert {(row["outcome"], row["transport"]) for row in rows} == {("ok", "zeromq")}
    assert {row["agent"] for row in rows} <= {"agent-1", "agent-2"}
