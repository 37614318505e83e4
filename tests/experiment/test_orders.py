"""Orders of arms and workloads: balanced, drawn from the seed, the first ones of a longer plan."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire_experiment.plan.balance import balance_of, balanced_order, period
from anywire_experiment.plan.orders import arm_names, planned_balance, workload_order
from anywire_experiment.plan.plan import Plan

NAMES = [f"arm-{at}" for at in range(9)]


def orders(count: int, blocks: int, seed: str = "s") -> list[list[str]]:
    return [[NAMES[at] for at in balanced_order(seed, count, turn)] for turn in range(blocks)]


@given(st.integers(2, 9), st.integers(1, 3), st.text(max_size=4))
def test_a_whole_design_has_each_arm_at_each_place_and_after_each_other_one_equally_often(
    count: int, designs: int, seed: str
) -> None:
    made = orders(count, designs * period(count), seed)
    balance = balance_of(made, NAMES[:count])
    assert balance.is_complete
    assert balance.after == [designs * period(count) // count] * 2
    assert "balanced: " in balance.told()


@given(st.integers(1, 9), st.integers(1, 40), st.text(max_size=4))
def test_any_number_of_blocks_has_each_arm_at_each_place_equally_often_or_once_more(
    count: int, blocks: int, seed: str
) -> None:
    made = orders(count, blocks, seed)
    assert all(sorted(order) == sorted(NAMES[:count]) for order in made)
    places = Counter((name, at) for order in made for at, name in enumerate(order))
    for name in NAMES[:count]:
        assert {places[name, at] for at in range(count)} <= {blocks // count, -(-blocks // count)}
    if count % 2 == 0:
        after = Counter(pair for order in made for pair in pairwise(order))
        pairs = [after[one, other] for one in NAMES[:count] for other in NAMES[:count] if one != other]
        assert max(pairs, default=0) - min(pairs, default=0) <= 1


def test_every_order_is_as_probable_as_every_other() -> None:
    seen = Counter(tuple(balanced_order(f"{seed}", 3, 0)) for seed in range(3000))
    assert len(seen) == 6
    assert all(400 < count < 600 for count in seen.values())


def test_more_blocks_begin_with_the_orders_of_fewer_and_blocks_differ() -> None:
    few, more = (Plan.model_validate(plan(blocks)) for blocks in (5, 40))
    assert [arm_names(few, block, NAMES) for block in range(1, 6)] == [
        arm_names(more, block, NAMES) for block in range(1, 6)
    ]
    assert len({tuple(arm_names(more, block, NAMES)) for block in range(1, 41)}) > 30
    other = more.model_copy(update={"seed": 2})
    assert arm_names(more, 1, NAMES) != arm_names(other, 1, NAMES)


def plan(blocks: int) -> dict[str, object]:
    return {"name": "p", "blocks": blocks, "workloads": {each: {"requests": 1} for each in ("a", "b", "c", "d")}}


def test_the_workloads_of_a_block_are_balanced_over_the_blocks() -> None:
    given = Plan.model_validate(plan(8))
    made = [workload_order(given, block) for block in range(1, 9)]
    assert balance_of(made, ["a", "b", "c", "d"]).is_complete


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (12, "balanced: each arm is first in 4 and stands at each other place in 4 of 12 blocks"),
        (13, "not wholly balanced, which takes a multiple of 6 whole blocks: each arm is first in 4 to 5"),
    ],
)
def test_how_even_the_orders_are_is_told(blocks: int, said: str) -> None:
    assert said in planned_balance(Plan.model_validate(plan(blocks)), NAMES[:3]).told()


def test_one_arm_has_no_order() -> None:
    assert "no order" in planned_balance(Plan.model_validate(plan(3)), ["alone"]).told()


def test_blocks_with_missing_cells_count_for_what_is_there() -> None:
    balance = balance_of([["a", "b"], ["a"], ["b", "a"]], ["a", "b"])
    assert (balance.first, balance.after) == ([1, 2], [1, 1])
