"""What the order of the blocks shows: dependence, and drift."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anywire_experiment.statistics import Outcome, as_family, compare, verdict
from anywire_experiment.statistics.median import fewest_for_interval, median_over_blocks, typical_value
from anywire_experiment.statistics.run_order import RunOrder, run_order, without_drift
from anywire_experiment.statistics.sign_runs import sign_tails
from anywire_experiment.statistics.simulated import autoregressive, drifting


def drawn(lag1: float, blocks: int, seed: int = 3) -> RunOrder:
    return run_order(autoregressive(lag1)(np.random.default_rng(seed), (blocks,)))


@pytest.mark.parametrize("count", [2, 3, 6, 10])
def test_the_tails_are_those_of_all_series_there_are(count: int) -> None:
    """Each outcome's p-value is the share of the 2**n series that are as extreme or more."""
    tails = sign_tails(count)
    found: list[float] = []
    for series in itertools.product((0, 1), repeat=count):
        changes = sum(one != other for one, other in itertools.pairwise(series))
        found.append(float(tails[sum(series), changes]))
    values = np.array(found)
    for p in np.unique(values[values < 1.0]):
        assert np.mean(values <= p + 1e-12) == pytest.approx(p)
    assert tails[0, 0] == pytest.approx(0.5**count) or count == 2


def test_a_limit_holds_as_often_as_it_says_for_the_rarest_cases() -> None:
    """All orders of seven ranks: the chance to miss is never above what is promised, with every level."""
    series = np.array(list(itertools.product((-1.0, 1.0), repeat=12))) * (1.0 + np.arange(12) / 100.0)
    of = median_over_blocks(series)
    for alpha in (0.001, 0.01, 0.025, 0.05, 0.2):
        assert np.mean(of.p_at_most(0.0) <= alpha) <= alpha + 1e-12
        assert np.mean(of.p_equal() <= alpha) <= alpha + 1e-12
        low, high = of.interval(1.0 - alpha)
        assert np.mean((low > 0.0) | (high < 0.0)) <= alpha + 1e-12


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_tests_and_limits_of_a_median_agree(values: list[float]) -> None:
    of = median_over_blocks(np.array(values))
    low, high = map(float, of.interval(0.9))
    assert low <= float(of.median) <= high
    for bound in (*values, float(of.median), low, high):
        if math.isfinite(bound):
            assert (float(of.p_equal(bound)) <= 0.1) == (not low <= bound <= high)


def test_what_so_few_blocks_do_not_bound_has_no_interval() -> None:
    assert [fewest_for_interval(level) for level in (0.9, 0.95, 0.99)] == [5, 6, 8]
    assert typical_value(np.arange(5.0), 0.95) is None
    found = typical_value(np.arange(6.0), 0.95)
    assert found is not None
    assert (found.low, found.value, found.high) == (0.0, 2.5, 5.0)


def test_independent_blocks_are_not_called_dependent_and_dependent_ones_are() -> None:
    alone = [drawn(0.0, 40, seed) for seed in range(200)]
    assert sum(each.depends for each in alone) <= 8
    assert not any(each.too_dependent for each in alone)
    assert sum(each.lag1.low <= 0.0 <= each.lag1.high for each in alone) >= 180
    alike = [drawn(0.5, 40, seed) for seed in range(200)]
    assert sum(each.depends for each in alike) >= 100
    assert sum(each.lag1.low <= 0.5 <= each.lag1.high for each in alike) >= 176
    assert float(np.mean([each.lag1.value for each in alike])) == pytest.approx(0.5, abs=0.06)
    assert 10 < float(np.median([each.worth for each in alike])) < 18


def test_blocks_that_hardly_change_are_not_judged() -> None:
    logs = 0.03 + 0.05 * autoregressive(0.97)(np.random.default_rng(1), (120,))
    found = compare([1.0] * 120, np.exp(logs).tolist(), margin=0.1)
    assert found.order.too_dependent
    said = verdict(as_family({"it": found})["it"])
    assert (said.outcome, said.blocks_needed, said.different) == (Outcome.NOT_ENOUGH_DATA, None, False)
    assert "depend on each other too much" in said.text


def test_a_leak_of_one_percent_per_block_is_told_as_drift() -> None:
    """With a spread of 3 %: of 100 runs of 16 blocks nearly all tell it, and its size."""
    told = 0
    for seed in range(100):
        noise = 0.03 * np.random.default_rng(seed).standard_normal(16)
        found = compare([1.0] * 16, np.exp(0.01 * np.arange(16) + noise).tolist(), margin=0.1)
        told += found.order.drifts
        if found.order.drifts:
            assert found.order.first < found.ratio.value < found.order.last
            assert found.ratio.value == pytest.approx(math.exp(0.075), abs=0.04)
    assert told >= 90
    assert found.order.per_block.value == pytest.approx(1.01, abs=0.006)


def test_what_drifts_out_of_the_margin_is_not_called_equivalent() -> None:
    wiggle = 0.001 * np.array([0.0, 1.0, -1.0, 0.5] * 4)
    for slope, equivalent in ((0.004, True), (0.02, False)):
        logs = slope * (np.arange(16) - 7.5) + wiggle
        found = compare([1.0] * 16, np.exp(logs).tolist(), margin=0.1)
        assert found.order.drifts
        assert found.equivalence.high < 1.01
        assert (verdict(found).outcome is Outcome.EQUIVALENT) == equivalent


@given(st.integers(0, 1000), st.sampled_from([3, 8, 16, 40]))
def test_kendall_s_test_is_that_of_others(seed: int, blocks: int) -> None:
    values = drifting(2.0)(np.random.default_rng(seed), (blocks,))
    wanted = stats.kendalltau(np.arange(blocks), values, method="exact").pvalue
    assert float(without_drift(values)[2]) == pytest.approx(float(wanted))


def test_one_block_and_equal_blocks_have_an_order_too() -> None:
    for values in ([0.5, 0.5], [0.0] * 16, [1.0, 2.0], [3.0, 1.0, 2.0]):
        found = run_order(np.array(values))
        assert not found.drifts
        assert not found.depends
        assert math.isfinite(found.worth)
