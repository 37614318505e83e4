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
from scipy import stats
from tests.long_form import examples

from anywire_experiment.statistics import Comparison, Outcome, as_family, blocks_needed, compare, holm, verdict

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    baseline: list[Floats]
    candidate: list[Floats]

    def compared(self, **options: Any) -> Comparison:
        return compare(self.baseline, self.candidate, **{"margin": 0.1, "resamples": 1000, **options})

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


def arms(ratio: float, spread: float, blocks: int = 12, seed: int = 5) -> Blocks:
    """Two arms whose log ratios have exactly that mean and standard deviation."""
    drawn = np.random.default_rng(seed).standard_normal(blocks)
    logs = math.log(ratio) + spread * stats.zscore(drawn, ddof=1)
    baseline = [np.array([2.0 + at % 3]) for at in range(blocks)]
    return Blocks(baseline, [each * math.exp(log) for each, log in zip(baseline, logs, strict=True)])


@given(experiments())
def test_swapping_the_arms_inverts_everything(blocks: Blocks) -> None:
    one, other = blocks.compared(), blocks.swapped().compared()
    assert other.ratio.value == pytest.approx(1.0 / one.ratio.value)
    assert (other.ratio.low, other.ratio.high) == pytest.approx((1.0 / one.ratio.high, 1.0 / one.ratio.low))
    assert (other.difference.low, other.difference.high) == pytest.approx((-one.difference.high, -one.difference.low))
    assert (other.shift.low, other.shift.high) == pytest.approx((-one.shift.high, -one.shift.low))
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
        assert getattr(other.difference, name) == pytest.approx(getattr(one.difference, name) + constant, abs=1e-8)
        assert getattr(other.shift, name) == pytest.approx(getattr(one.shift, name) + constant, abs=1e-8)


@given(experiments(), st.randoms(use_true_random=False))
def test_the_order_of_the_blocks_is_irrelevant(blocks: Blocks, random: Any) -> None:
    order = list(range(len(blocks.baseline)))
    random.shuffle(order)
    shuffled = Blocks([blocks.baseline[at] for at in order], [blocks.candidate[at] for at in order])
    one, other = blocks.compared(), shuffled.compared()
    assert (other.ratio.low, other.ratio.high) == pytest.approx((one.ratio.low, one.ratio.high))
    assert (other.difference.low, other.difference.high) == pytest.approx((one.difference.low, one.difference.high))


@given(experiments())
def test_every_interval_holds_its_estimate_and_tests_agree_with_intervals(blocks: Blocks) -> None:
    comparison = blocks.compared(resamples=2000)
    for each in (comparison.ratio, comparison.difference, comparison.ratio_shift, comparison.equivalence):
        assert each.low <= each.value <= each.high
    # The interval interpolates between resamples and the p-value counts them, hence the thousandths.
    if comparison.p_different < 0.047:
        assert not comparison.ratio.low <= 1.0 <= comparison.ratio.high
    if comparison.p_equivalent < 0.048:
        assert 1.0 / 1.1 < comparison.equivalence.low <= comparison.equivalence.high < 1.1


@given(experiments(least=12))
def test_the_same_data_and_seed_give_the_same_result(blocks: Blocks) -> None:
    assert blocks.compared(seed=3) == blocks.compared(seed=3)


def test_identical_arms_have_a_ratio_of_exactly_one() -> None:
    blocks = [np.array([1.0, 2.0, 4.0 + at]) for at in range(12)]
    comparison = compare(blocks, blocks, margin=0.05)
    assert (comparison.ratio.low, comparison.ratio.value, comparison.ratio.high) == (1.0, 1.0, 1.0)
    assert (comparison.difference.low, comparison.difference.high) == (0.0, 0.0)
    assert comparison.p_different == 1.0
    told = verdict(comparison)
    assert (told.outcome, told.words, told.different) == (Outcome.EQUIVALENT, "equivalent within 5 %", False)
    assert "no difference" in told.text


def test_a_ratio_that_never_varies_is_certain_despite_rounding() -> None:
    blocks = [np.array([0.1 + at / 7]) for at in range(12)]
    comparison = compare(blocks, [1.3 * each for each in blocks], margin=0.1)
    assert comparison.ratio.low == comparison.ratio.high == pytest.approx(1.3)
    assert verdict(comparison).words == "slower"


def test_one_odd_block_among_equal_ones_leaves_the_limits_finite() -> None:
    comparison = compare([1.0] * 12, [1.0] * 11 + [1.5], margin=0.1)
    assert 0.9 < comparison.ratio.low < 1.0 < comparison.ratio.high < 1.2
    assert verdict(comparison).different is False


def test_the_walsh_limits_are_where_the_signed_rank_test_begins_to_reject() -> None:
    rng = np.random.default_rng(2)
    before = rng.lognormal(0.0, 0.2, 15)
    after = before * rng.lognormal(0.1, 0.2, 15)
    shift = compare(before.tolist(), after.tolist(), margin=0.1).shift
    differences = after - before
    alpha = 1.0 - shift.level
    assert 0.95 <= shift.level < 0.96
    for outside, inside in ((shift.low - 1e-9, shift.low + 1e-9), (shift.high + 1e-9, shift.high - 1e-9)):
        assert stats.wilcoxon(differences - outside, method="exact").pvalue == pytest.approx(alpha)
        assert stats.wilcoxon(differences - inside, method="exact").pvalue > alpha


def test_the_studentised_interval_is_close_to_student_s_for_normal_log_ratios() -> None:
    comparison = arms(1.2, 0.1, blocks=40).compared(resamples=10_000)
    reach = stats.t.ppf(0.975, 39) * 0.1 / math.sqrt(40)
    assert math.log(comparison.ratio.high) == pytest.approx(math.log(1.2) + reach, abs=0.15 * reach)
    assert comparison.spread == pytest.approx(0.1)


def test_a_statistic_of_the_samples_or_a_number_as_such() -> None:
    samples = [np.arange(1.0, 101.0) + at for at in range(12)]
    tails = [float(np.percentile(each, 95)) for each in samples]
    assert compare(samples, samples, margin=0.1, statistic="p95").baseline == pytest.approx(stats.gmean(tails))
    assert compare(tails, tails, margin=0.1).baseline == pytest.approx(stats.gmean(tails))


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
        (Blocks([np.ones(1)] * 2, [np.ones(1)] * 2), {"resamples": 10}, "resamples"),
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
        (1.30, 0.05, 12, "slower", True),
        (0.70, 0.05, 12, "faster", True),
        (1.08, 0.05, 12, "slower", True),
        (1.02, 0.05, 12, "equivalent within 10 %", False),
        (1.04, 0.02, 12, "equivalent within 10 %", True),
        (1.05, 0.20, 12, "not enough data", False),
        (1.30, 0.05, 11, "not enough data", False),
        (1.00, 0.01, 11, "not enough data", False),
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
    few, many = verdict(arms(1.04, 0.2).compared()), verdict(arms(1.06, 0.2, blocks=41).compared())
    assert few.blocks_needed == blocks_needed(0.2, 0.1) == 40
    assert "a new run of 40 blocks" in few.text
    assert many.blocks_needed == blocks_needed(0.2, 0.1, true_ratio=math.sqrt(1.1)) > 41


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
    alone = arms(1.08, 0.12).compared(resamples=10_000)
    assert verdict(alone).words == "slower" or alone.p_different > 0.05
    barely = msgspec.structs.replace(alone, p_different=0.02, p_equivalent=0.4)
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
    ],
)
def test_what_cannot_be_planned_is_said(spread: float, margin: float, options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        blocks_needed(spread, margin, **options)


def test_arms_that_never_vary_take_the_fewest_blocks() -> None:
    assert blocks_needed(0.0, 0.1) == 12


@given(st.floats(0.01, 1.0), st.floats(0.02, 0.5))
@settings(max_examples=examples(30))
def test_more_spread_or_a_finer_margin_takes_more_blocks(spread: float, margin: float) -> None:
    needed = blocks_needed(spread, margin)
    assert needed >= 12
    assert blocks_needed(1.5 * spread, margin) >= needed
    assert blocks_needed(spread, margin / 1.5) >= needed
