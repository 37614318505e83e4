"""What the fault of one workload leaves behind does not meet the next one of the cell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.real_runs import plan_tree, run_cell
from tests.patience import FACTOR

from anywire.agent_health import AgentHealth
from anywire.messages import AgentInfo, AgentStatus
from anywire.selector import AgentView
from anywire_experiment.plan.orders import workload_order
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record.cells import Cell
from anywire_experiment.run.agents_well import why_unwell
from anywire_experiment.run.system import System

pytestmark = pytest.mark.timeout(240)

LASTING = {"kind": "500-burst", "at": 0.3, "lasts": 1.0}
STREAMS = {"stream": True, "max_tokens": 4, "arrivals": {"kind": "poisson", "rate": 40}}


def tree(domain: int, **breaker: Any) -> dict[str, Any]:
    """A workload in which the server behind an agent fails to the end, and one after it that is over at once."""
    workloads = {
        "fails": {**STREAMS, "seconds": 1.3, "warm_up": {"requests": 3, "limit": 3}, "fault": LASTING},
        "next": {**STREAMS, "requests": 10, "warm_up": {"requests": 0, "limit": 0}},
    }
    members = {"agents": 2, "factors": {"transport": ["zeromq"]}, "stand_in": {"pace": "1 ms"}}
    made = plan_tree(domain, workloads=workloads, **members)
    made["system"]["engine"] = {"name": "openai"}
    made["system"]["pipeline"] = {"breaker": breaker}
    orders = {seed: workload_order(Plan.model_validate(made | {"seed": seed}), 1) for seed in range(1, 9)}
    return made | {"seed": next(seed for seed, order in orders.items() if order[0] == "fails")}


def breakers(cell: Cell) -> list[tuple[int, str]]:
    """When breakers changed, and what they became."""
    changed = [each for each in cell.events if each.what == "health_changed"]
    return [(each.at_ns, each.detail.partition(":")[0].rpartition(" ")[2]) for each in changed]


async def test_a_breaker_that_a_fault_has_opened_is_closed_before_the_next_workload(
    tmp_path: Path, dds_domain: int
) -> None:
    cell = await run_cell(tree(dds_domain, errors=2, recovery=1.5), tmp_path / "cell", dds_domain)
    assert cell.state == "completed", cell.reason
    before = [state for at, state in breakers(cell) if at <= cell.workloads["next"].began_ns]
    assert "open" in before
    assert before[-1] == "closed"


async def test_an_agent_that_does_not_get_well_fails_the_cell_which_says_why(
    tmp_path: Path, dds_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = System.available

    async def soon(system: System) -> None:
        async with asyncio.timeout(4 * FACTOR):
            await available(system)

    monkeypatch.setattr(System, "available", soon)
    made = tree(dds_domain, errors=2, recovery=3600, longest=3600)
    cell = await run_cell(made, tmp_path / "cell", dds_domain)
    assert cell.state == "failed"
    assert cell.reason.startswith("next was not measured: not every agent took tasks within 60 s before it: agent-")
    assert "has a breaker that is open" in cell.reason
    assert cell.workloads["next"].began_ns == 0
    assert cell.workloads["fails"].requests > 0


@pytest.mark.parametrize(
    ("members", "health", "said"),
    [
        ({}, {}, ""),
        ({"state": "starting"}, {}, "is starting"),
        ({}, {"order": "drained"}, "is drained"),
        ({}, {"state": "quarantined", "reason": "3 × lost"}, "is quarantined: 3 × lost"),
        ({}, {"state": "half_open", "reason": "3 × lost"}, "has a breaker that is half open (3 × lost)"),
        ({}, {"links": {"dds": "open"}}, "has a breaker that is open over dds"),
        ({}, {"links": {"tcp": "half_open"}}, "has a breaker that is half open over tcp"),
        ({}, {"links": {"dds": "half_open"}}, ""),
        ({}, {"state": "open", "models": {"m": "half_open"}}, "has a breaker that is open and half open for m"),
        ({}, {"slow_start": 1}, "begins slowly, with 1 of its 4 slots"),
    ],
)
def test_what_keeps_an_agent_from_tasks_is_said(members: dict[str, Any], health: dict[str, Any], said: str) -> None:
    status = AgentStatus("agent-1", 1, slots=4, **members)
    view = AgentView(AgentInfo("agent-1", 1), status, 0, transport="tcp")
    assert why_unwell(view, AgentHealth(**health)) == said
    assert why_unwell(None, AgentHealth()) == "is not registered"
    view.unavailable.add("congested")
    assert why_unwell(view, AgentHealth()) == (said if members else "is congested")
