"""What docs/explanation/scale.md says of large fleets is what its script computes from the measured figures."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.long_form import SOAK

import scale
from scale_arithmetic import (
    DELIBERATIONS,
    FULL,
    Costs,
    Fleet,
    added_by_level,
    costs_of,
    idle_us,
    levels_of,
    messages_of,
    orchestrators,
    server_cores,
    task_bytes,
    tree_of,
)

COSTS = costs_of(scale.MEASURED / "wire_cost.json")
LEVELS = levels_of(scale.MEASURED / "tree_cost.json")
DOCS = scale.ROOT / "docs"

FLEETS = st.builds(
    Fleet,
    agents=st.integers(1, 100_000),
    slots=st.integers(1, 64),
    busy=st.floats(0.0, 1.0),
    rate=st.floats(1.0, 500.0),
    answer_tokens=st.integers(1, 10_000),
)


def test_the_page_has_the_tables_that_are_computed() -> None:
    page = scale.PAGE.read_text(encoding="utf-8")
    made = scale.tables(COSTS, LEVELS, Fleet())
    assert scale.with_tables(page, made) == page, "run `python benchmarks/scale.py --write`"
    marks = re.findall(r"<!-- benchmarks/scale.py: (\w+) -->", page)
    assert sorted(marks) == sorted(made)
    assert not re.search(r"^\|.*\n[^|\n]", page, re.MULTILINE), "a line right below a table is shown as a row of it"


def test_a_figure_that_changes_changes_the_page() -> None:
    page = scale.PAGE.read_text(encoding="utf-8")
    dearer = [each._replace(token={**each.token, "hub_us": 2 * each.token["hub_us"]}) for each in COSTS]
    changed = scale.with_tables(page, scale.tables(dearer, LEVELS, Fleet()))
    assert changed != page
    assert scale.with_tables(changed, scale.tables(COSTS, LEVELS, Fleet())) == page
    with pytest.raises(ValueError, match=r"0 marks .*: measured"):
        scale.with_tables("no marks", scale.tables(COSTS, LEVELS, Fleet()))


def test_figures_of_other_pages_stand_there() -> None:
    deliberation = (DOCS / "explanation/deliberation.md").read_text(encoding="utf-8")
    for (members, rounds), size in DELIBERATIONS.items():
        assert re.search(rf"^\| {members}, {rounds} \|.* {size:,} \|", deliberation, re.MULTILINE)
    results, benchmarks = ((DOCS / name).read_text(encoding="utf-8") for name in ("results.md", "benchmarks.md"))
    assert "| CPU for that | 4.3 s | 49 s |" in results
    assert "PSS (RSS) | 36 (53) MiB | 36 (53) MiB |" in results
    assert "| 10 | 22 ms | 63 KiB |" in benchmarks
    assert "takes 2.7 to 3.5 KB" in benchmarks


@given(FLEETS, st.sampled_from(COSTS), st.floats(0.5, 60.0))
def test_orchestrators_are_enough_and_not_one_too_many(fleet: Fleet, costs: Costs, lease: float) -> None:
    count = orchestrators(fleet, costs, lease)
    work = fleet.tasks * costs.request["hub_us"] + fleet.tokens * costs.token["hub_us"]
    work += fleet.agents * idle_us(costs, lease)
    assert work <= count * FULL * 1e6 * (1 + 1e-9)
    assert count == 0 or work > (count - 1) * FULL * 1e6 * (1 - 1e-9)


@given(FLEETS, st.sampled_from(COSTS))
def test_more_agents_and_shorter_leases_cost_more(fleet: Fleet, costs: Costs) -> None:
    more = fleet._replace(agents=fleet.agents + 1)
    assert orchestrators(more, costs, 10.0) >= orchestrators(fleet, costs, 10.0)
    assert orchestrators(fleet, costs, 1.0) >= orchestrators(fleet, costs, 10.0)
    if costs.hops > 1:
        assert server_cores(more, costs, 10.0) > server_cores(fleet, costs, 10.0)


@given(st.integers(1, 1_000_000), st.integers(2, 10_000))
def test_a_tree_has_room_for_all_and_one_at_the_top(agents: int, fan_out: int) -> None:
    found = tree_of(agents, fan_out)
    assert found[-1] == 1
    for below, above in zip([agents, *found], found, strict=False):
        assert (above - 1) * fan_out < below <= above * fan_out


@given(st.integers(1, 10_000), st.integers(2, 1_000))
def test_a_stream_is_read_in_halves_of_its_window(tokens: int, window: int) -> None:
    found = messages_of(tokens, stream=True, window=window)
    assert found.credits * (window // 2) < tokens <= found.chunks
    assert messages_of(tokens, stream=False, window=window).all == 2


@pytest.mark.parametrize("costs", COSTS, ids=lambda costs: costs.name)
def test_a_task_has_the_bytes_that_were_measured(costs: Costs) -> None:
    assert task_bytes(costs, costs.alone["payload_bytes"]) == pytest.approx(costs.alone["bytes"])
    assert task_bytes(costs, 0) > 0


def test_each_level_of_the_measured_trees_costs_something() -> None:
    assert [each.levels for each in LEVELS] == [1, 2, 3]
    assert all(value > 0 for value in added_by_level(LEVELS))


@pytest.mark.skipif(not SOAK, reason="in the long form alone: the measurements themselves, half a minute")
@pytest.mark.timeout(300)
async def test_figures_of_another_machine_make_its_tables(tmp_path: Path) -> None:
    wire, tree = tmp_path / "wire.json", tmp_path / "tree.json"
    small = ("--rounds", "1", "--tasks", "128")
    await _run("wire_cost.py", "zeromq", *small, "--idle", "0.5", "--links", "2", "--out", str(wire))
    await _run("tree_cost.py", *small, "--levels", "1", "2", "--out", str(tree))
    said = await _run("scale.py", "--wire", str(wire), "--tree", str(tree), "--agents", "50", "--rate", "20")
    assert [name for name in scale.TABLES if f"\n{name}: " not in said] == []
    assert [each.name for each in costs_of(wire)] == ["zeromq"]
    assert [each.levels for each in levels_of(tree)] == [1, 2]


async def _run(script: str, *arguments: str) -> str:
    command = (sys.executable, str(scale.ROOT / "benchmarks" / script), *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()
