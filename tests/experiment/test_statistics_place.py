"""What the place in a block does: found where it is, seldom where it is not, and taken out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.long_form import examples

from anywire_experiment.plan.balance import balanced_order
from anywire_experiment.statistics.place import FOUND, Layout
from anywire_experiment.statistics.place_calibration import NOISE, coverage, simulate


def layout(arms: int, blocks: int) -> Layout:
    orders = [balanced_order("s", arms, block) for block in range(blocks)]
    cells = [
        (block, arm, at, order[at - 1] if at else -1)
        for block, order in enumerate(orders)
        for at, arm in enumerate(order)
    ]
    return Layout(*(list(each) for each in zip(*cells, strict=True)))


def test_effects_are_exact_where_there_is_no_chance() -> None:
    blocks, arms = 12, 3
    cells = [(block, arm, at) for block in range(blocks) for at, arm in enumerate(balanced_order("s", arms, block))]
    made = layout(arms, blocks)
    place = np.array([0.1, 0.0, 0.0])
    logs = np.array([0.3 * block + 0.2 * arm + place[at] for block, arm, at in cells])
    told = made.told(logs, 0.95)
    assert told.effects[0].value == pytest.approx(math.exp(0.1))
    assert told.effects[1].value == pytest.approx(math.exp(-0.05))
    assert told.p == pytest.approx(0.0, abs=1e-12)
    bare = made.adjusted(logs)
    assert bare.mean() == pytest.approx(logs.mean())
    assert bare == pytest.approx(np.array([0.3 * block + 0.2 * arm + 0.1 / 3 for block, arm, _ in cells]))


@pytest.mark.parametrize("arms", [2, 3, 5])
def test_the_place_is_found_and_arms_do_not_suffer_from_it(arms: int) -> None:
    many = examples(300)
    rng = np.random.default_rng(3)
    for noise in NOISE:
        none, planted = (simulate(rng, many, arms, 12, noise=noise, first=first) for first in (0.0, math.log(1.1)))
        _within(float(np.mean(none.p <= FOUND)), 0.05, many)
        assert np.mean(planted.p <= FOUND) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / many)
        for made in (none, planted):
            held = coverage(made.log_ratios, made.truth)
            assert held >= 0.93 - 3 * math.sqrt(0.07 * 0.93 / many), (noise, arms)
        assert planted.width < 0.75


def _within(share: float, promised: float, many: int) -> None:
    assert share <= promised + 0.01 + 3 * math.sqrt(promised * (1 - promised) / many)


def test_what_ran_before_is_told_apart_from_the_place_with_three_arms_and_not_with_two() -> None:
    rng = np.random.default_rng(4)
    assert layout(2, 12).p_carry_over(rng.standard_normal(24)) is None
    made = layout(3, 12)
    order = [balanced_order("s", 3, block) for block in range(12)]
    after_first = np.array([0.3 * (at > 0 and row[at - 1] == 1) for row in order for at in range(3)])
    p = made.p_carry_over(after_first + 0.05 * rng.standard_normal(36))
    assert p is not None
    assert p < 0.001


def test_cells_that_always_stand_at_one_place_tell_nothing() -> None:
    cells = [(block, arm, arm, arm - 1) for block in range(12) for arm in range(3)]
    assert not Layout(*(list(each) for each in zip(*cells, strict=True))).is_estimable


@pytest.mark.parametrize("cells", [[(0, 0, 0, -1)], [(0, 0, 0, -1), (0, 1, 1, 0)], [(0, 0, 0, -1), (1, 0, 0, -1)]])
def test_too_few_cells_tell_nothing(cells: list[tuple[int, int, int, int]]) -> None:
    assert not Layout(*(list(each) for each in zip(*cells, strict=True))).is_estimable


def test_equal_values_have_no_effect() -> None:
    told = layout(3, 12).told(np.zeros(36), 0.95)
    assert (told.p, [each.value for each in told.effects]) == (1.0, [1.0, 1.0, 1.0])
