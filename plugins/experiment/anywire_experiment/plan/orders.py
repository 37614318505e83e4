"""The orders in which a plan's arms and workloads are run: balanced over the blocks, drawn from the seed."""

from __future__ import annotations

from collections.abc import Sequence

from anywire_experiment.plan.balance import Balance, balance_of, balanced_order
from anywire_experiment.plan.plan import Plan


def workload_order(plan: Plan, block: int) -> list[str]:
    """The workloads of a block's cells: the same for every arm, so that what their order does cancels where arms are
    compared, and balanced over the blocks."""
    names = list(plan.workloads)
    return [names[at] for at in balanced_order(f"{plan.seed}/workloads", len(names), block - 1)]


def arm_names(plan: Plan, block: int, names: Sequence[str]) -> list[str]:
    """The arms of a block, by name, in the order in which they run."""
    return [names[at] for at in balanced_order(f"{plan.seed}/arms", len(names), block - 1)]


def planned_balance(plan: Plan, names: Sequence[str]) -> Balance:
    """How even the orders of the plan's arms are, before it runs."""
    return balance_of([arm_names(plan, block, names) for block in range(1, plan.blocks + 1)], names)
