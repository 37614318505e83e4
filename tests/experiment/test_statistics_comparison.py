"""Comparison of two arms over blocks, families of comparisons, and verdicts."""

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.long_form import examples

from anywire_experiment.statistics import Comparison, Outcome, as_family, blocks_needed, compare, holm, verdict

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    baseline: list[Floats]
    candidate: list[Floats]

    def compared(self, **options: Any) -> Comparison:
        return compare(self.baseline, self.candidate, **{"margin": 0.1, **options})

    def swapped(self) -> "Blocks":
        return Blocks(self.candidate, self.baseline)


@st.composite
def experiments(draw: st.DrawFn, least: int = 2) -> Blocks:
    """Two arms of some blocks, a few samples each."""
    count = draw(st.integers(least, 20))
    ratio, spread = draw(st.floats(0.5, 2.0)), draw(st.sampled_from([0.0, 0.01, 0.1, 0.5]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    baseline = [rng.lognormal(0.0, 0.3, 9) * rng.lognormal(0.0, 0.5) for _ in range(count)]
    return Blocks(baseline, [ratio * each * rng.lognormal(0.0, spread) for each in baseline])


def arms(ratio: float, spread: float, blocks: int = 16, seed: int = 5) -> Blocks:
    """Two arms whose log ratios have exactly that median and standard deviation."""
    drawn = np.random.default_rng(seed).standard_normal(blocks)
    drawn -= np.median(drawn)
    logs = math.log(ratio) + spread * drawn / np.std(drawn, ddof=1)
    baseline = [np.array([2.0 + at % 3]) for at in range(blocks)]
    return Blocks(baseline, [each * math.exp(log) for each, log in zip(baseline, logs, strict=True)])


@given(experiments())
def test_swapping_the_arms_inverts_everything(blocks: Blocks) -> None:
    one, other = blocks.compared(), blocks.swapped().compared()
    assert other.ratio.value == pytest.approx(1.0 / one.ratio.value)
    assert (other.ratio.low, other.ratio.high) == pytest.approx((1.0 / one.ratio.high, 1.0 / one.ratio.low))
    assert (other.difference.low, other.difference.high) == pytest.approx((-one.difference.high, -one.difference.low))
    assert (other.p_different, other.p_equivalent) == pytest.approx((one.p_different, one.p_equivalent))
    inverted = {Outcome.BETTER: Outcome.WORSE, Outcome.WORSE: Outcome.BETTER}
    assert verdict(other).outcome == inverted.get(verdict(one).outcome, verdict(one).outcome)
    assert verdict(other, larger_is_better=True).outcome == verdict(one).outcome


@given(experiments(), st.floats(1e-6, 1e6))
def test_the_unit_changes_the_difference_only(blocks: Blocks, factor: float) -> None:
    one = blocks.compared()
    other = Blocks([factor * each for each in blocks.baseline], [factor * each for each in blocks.candidate]).compared()
    for name in ("value", "low", "high"):
        assert getattr(other.ratio, name) == pytest.approx(getattr(one.ratio, name))
        assert getattr(other.difference, name) == pytest.approx(factor * getattr(one.difference, name))
    assert verdict(other).outcome == verdict(one).outcome


@given(experiments(), st.floats(0.0, 10.0))
def test_what_every_sample_takes_longer_is_added_to_the_difference(blocks: Blocks, constant: float) -> None:
    one = blocks.compared()
    other = Blocks(blocks.baseline, [each + constant for each in blocks.candidate]).compared()
    for name in ("value", "low", "high"):
        wanted = getattr(one.difference, name) + constant
        assert (
            one.order.drifts or other.order.drifts or getattr(other.difference, name) == pytest.approx(wanted, abs=1e-8)
        )


@given(experiments())
def test_to_run_backwards_turns_the_drift_and_nothing_else(blocks: Blocks) -> None:
    backwards = Blocks(blocks.baseline[::-1], blocks.candidate[::-1])
    one, other = blocks.compared(), backwards.compared()
    assert (other.ratio.low, other.ratio.high) == pytest.approx((one.ratio.low, one.ratio.high))
    assert other.p_different == pytest.approx(one.p_different)
    assert (other.order.first, other.order.last) == pytest.approx((one.order.last, one.order.first))
    assert other.order.lag1.value == pytest.approx(one.order.lag1.value)


@given(experiments())
def test_every_interval_holds_its_estimate_and_tests_agree_with_intervals(blocks: Blocks) -> None:
    comparison = blocks.compared()
    order = comparison.order
    for each in (comparison.ratio, comparison.difference, comparison.equivalence, order.lag1, order.per_block):
        assert each.low <= each.value <= each.high
    if comparison.ratio.level == 0.95:
        assert (comparison.p_different <= 0.05) == (not comparison.ratio.low <= 1.0 <= comparison.ratio.high)
    inside = 1.0 / 1.1 < comparison.equivalence.low <= comparison.equivalence.high < 1.1
    assert comparison.p_equivalent > 0.05 or inside


def test_identical_arms_have_a_ratio_of_exactly_one() -> None:
    blocks = [np.array([1.0, 2.0, 4.0 + at]) for at in range(16)]
    comparison = compare(blocks, blocks, margin=0.05)
    assert (comparison.ratio.low, comparison.ratio.value, comparison.ratio.high) == (1.0, 1.0, 1.0)
    assert (comparison.difference.low, comparison.difference.high) == (0.0, 0.0)
    assert comparison.p_different == 1.0
    told = verdict(comparison)
    assert (told.outcome, told.words, told.different) == (Outcome.EQUIVALENT, "equivalent within 5 %", False)
    assert "no difference" in told.text


def test_a_ratio_that_never_varies_is_certain_despite_rounding() -> None:
    blocks = [np.array([0.1 + at / 7]) for at in range(16)]
    comparison = compare(blocks, [1.3 * each for each in blocks], margin=0.1)
    assert comparison.ratio.low == comparison.ratio.high == pytest.approx(1.3)
    assert verdict(comparison).words == "slower"


def test_one_odd_block_among_equal_ones_leaves_the_limits_finite() -> None:
    comparison = compare([1.0] * 16, [*[1.0] * 8, 1.5, *[1.0] * 7], margin=0.1)
    assert comparison.ratio.low == comparison.ratio.value == comparison.ratio.high == 1.0
    assert verdict(comparison).different is False


def test_what_it_takes_for_every_block_to_agree() -> None:
    assert arms(1.3, 0.01).compared().p_different == pytest.approx(2.0 / 2**16)


def test_a_group_of_neighbours_on_the_other_side_weighs_more_than_scattered_blocks() -> None:
    above = [1.2 + 0.001 * (at * 7 % 16) for at in range(16)]
    together, apart = above.copy(), above.copy()
    for at in (7, 8, 9):
        together[at] = 0.9 + 0.001 * at
    for at in (2, 7, 12):
        apart[at] = 0.9 + 0.001 * at
    found = [compare([1.0] * 16, candidate, margin=0.1) for candidate in (together, apart)]
    assert found[0].p_different > 0.05 > found[1].p_different
    assert found[0].ratio.low < 1.0 < found[1].ratio.low


def test_a_statistic_of_the_samples_or_a_number_as_such() -> None:
    samples = [np.arange(1.0, 101.0) + at for at in range(12)]
    tails = [float(np.percentile(each, 95)) for each in samples]
    assert compare(samples, samples, margin=0.1, statistic="p95").baseline == pytest.approx(float(np.median(tails)))
    assert compare(tails, tails, margin=0.1).baseline == pytest.approx(float(np.median(tails)))


@pytest.mark.parametrize(
    ("blocks", "options", "said"),
    [
        (Blocks([np.ones(3)] * 3, [np.ones(3)] * 2), {}, "3 blocks of the baseline and 2 of the candidate"),
        (Blocks([np.ones(3)], [np.ones(3)]), {}, "2 or more"),
        (Blocks([np.ones(3)] * 2, [np.ones(3), np.array([])]), {}, "candidate, block 1: 0 given"),
        (Blocks([np.ones(3)] * 2, [np.array([1.0, math.nan])] * 2), {}, "candidate, block 0: number 1 is nan"),
        (Blocks([np.array([math.inf])] * 2, [np.ones(1)] * 2), {}, "baseline, block 0: number 0 is inf"),
        (Blocks([np.ones(1)] * 2, [np.zeros(1)] * 2), {}, "values above zero"),
        (Blocks([np.ones(1)] * 2, [np.ones(1)] * 2), {"margin": 0.0}, "margin"),
        (Blocks([np.ones(1)] * 2, [np.ones(1)] * 2), {"level": 95.0}, "level"),
        (Blocks([np.ones(1)] * 2, [np.ones(1)] * 2), {"statistic": "p0"}, "unknown statistic 'p0'"),
        (Blocks([np.ones(1)] * 2, [np.ones(1)] * 2), {"statistic": "mode"}, "unknown statistic 'mode'"),
    ],
)
def test_what_cannot_be_compared_is_said(blocks: Blocks, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        blocks.compared(**options)


@pytest.mark.parametrize(
    ("ratio", "spread", "blocks", "words", "different"),
    [
        (1.30, 0.05, 16, "slower", True),
        (0.70, 0.05, 16, "faster", True),
        (1.10, 0.05, 16, "slower", True),
        (1.02, 0.03, 16, "equivalent within 10 %", False),
        (1.04, 0.01, 16, "equivalent within 10 %", True),
        (1.05, 0.20, 16, "not enough data", False),
        (1.30, 0.05, 15, "not enough data", False),
        (1.00, 0.01, 15, "not enough data", False),
    ],
)
def test_verdicts(ratio: float, spread: float, blocks: int, words: str, different: bool) -> None:
    told = verdict(arms(ratio, spread, blocks).compared(), unit="ms")
    assert (told.words, told.different) == (words, different)
    assert (told.blocks_needed is None) == (told.outcome is not Outcome.NOT_ENOUGH_DATA)


def test_the_sentence_gives_effect_interval_and_unit() -> None:
    said = verdict(arms(1.25, 0.02).compared(), unit="ms").text
    assert said.startswith("slower by 25.0 % (95 % interval +2")
    assert " ms, +0." in said
    assert verdict(arms(1.25, 0.02).compared(), larger_is_better=True, words=("more", "less")).text.startswith(
        "more by"
    )
    assert "90 % interval" in verdict(arms(1.02, 0.02).compared()).text


def test_an_undecided_run_is_told_how_many_blocks_a_new_one_takes() -> None:
    few, many = verdict(arms(1.04, 0.2).compared()), verdict(arms(1.045, 0.2, blocks=140).compared(level=0.99))
    assert few.blocks_needed == blocks_needed(0.2, 0.1, known_from=16) > blocks_needed(0.2, 0.1)
    assert f"a new run of {few.blocks_needed} blocks" in few.text
    halfway = math.sqrt(1.1)
    wanted = blocks_needed(0.2, 0.1, true_ratio=halfway, alpha=0.01, known_from=140)
    assert many.blocks_needed == wanted > 140


def test_holm_against_the_example_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_lies_between_no_correction_and_bonferroni_s_whatever_the_order(given_: list[float], random: Any) -> None:
    adjusted = holm(given_)
    assert (np.array(given_) <= adjusted).all()
    assert (adjusted <= np.minimum(len(given_) * np.array(given_), 1.0) + 1e-15).all()
    order = list(range(len(given_)))
    random.shuffle(order)
    assert holm([given_[at] for at in order]).tolist() == adjusted[order].tolist()


@pytest.mark.parametrize("p_values", [[], [0.5, 1.5], [math.nan]])
def test_holm_takes_p_values_only(p_values: list[float]) -> None:
    with pytest.raises(ValueError, match="p-values"):
        holm(p_values)


def test_a_verdict_goes_by_the_family_s_p_values() -> None:
    barely = msgspec.structs.replace(arms(1.08, 0.05).compared(), p_different=0.02, p_equivalent=0.4)
    family = as_family({"dds": barely, "zeromq": barely, "http": barely})
    assert {each.family for each in family.values()} == {3}
    assert family["dds"].adjusted_different == pytest.approx(0.06)
    assert verdict(family["dds"]).outcome is Outcome.NOT_ENOUGH_DATA
    assert as_family({"dds": barely})["dds"].adjusted_different == 0.02
    assert as_family({}) == {}


def test_a_comparison_of_too_few_blocks_makes_its_family_no_smaller() -> None:
    enough, few = arms(1.3, 0.05).compared(), arms(1.3, 0.05, blocks=6).compared()
    family = as_family({"enough": enough, "few": few})
    assert family["few"].adjusted_different == 1.0
    assert family["enough"].adjusted_different == pytest.approx(2.0 * enough.p_different)


@pytest.mark.parametrize(
    ("spread", "margin", "options", "said"),
    [
        (-1.0, 0.1, {}, "spread"),
        (math.nan, 0.1, {}, "spread"),
        (0.1, 0.0, {}, "margin"),
        (0.1, 0.1, {"power": 80.0}, "power"),
        (0.1, 0.1, {"alpha": 0.0}, "alpha"),
        (0.1, 0.1, {"true_ratio": -1.0}, "true_ratio"),
        (0.1, 0.1, {"family": 0}, "family"),
        (0.1, 0.1, {"known_from": 1}, "known_from"),
    ],
)
def test_what_cannot_be_planned_is_said(spread: float, margin: float, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        blocks_needed(spread, margin, **options)


def test_arms_that_never_vary_take_the_fewest_blocks() -> None:
    assert blocks_needed(0.0, 0.1) == 16


@given(st.floats(0.01, 1.0), st.floats(0.02, 0.5))
@settings(max_examples=examples(30))
def test_more_spread_or_a_finer_margin_takes_more_blocks(spread: float, margin: float) -> None:
    needed = blocks_needed(spread, margin)
    assert needed >= 16
    assert blocks_needed(1.5 * spread, margin) >= needed
    assert blocks_needed(spread, margin / 1.5) >= needed
    assert blocks_needed(spread, margin, known_from=16) >= 0.95 * needed
    assert blocks_needed(spread, margin, family=50) >= needed
