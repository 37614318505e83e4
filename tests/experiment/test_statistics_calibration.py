"""The intervals and tests hold what they promise, on simulated experiments whose truth is known."""

import math

import numpy as np
import pytest
from scipy.signal import lfilter
from tests.long_form import SOAK

from anywire_experiment.statistics import blocks_needed, compare, holm, summarise
from anywire_experiment.statistics.calibration import (
    EFFECTS,
    RESAMPLES,
    SAMPLES,
    coverage,
    different,
    equivalent,
    simulate,
)
from anywire_experiment.statistics.studentised import resampling_counts, studentised_mean

EXPERIMENTS = 2000
BLOCKS = [12, 20] if SOAK else [12]
NOISE = 2.0 * math.sqrt(0.05 * 0.95 / EXPERIMENTS)
"""Two standard errors of a rate of 5 %."""
MARGIN = 0.10
SYMMETRICAL = ("normal", "Student's t, 5 degrees", "one block in ten disturbed")
SKEWED = ("gamma, skewness 1", "gamma, skewness 1.4")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("samples", SAMPLES)
def test_intervals_cover_whatever_the_samples_in_a_block_look_like(
    rng: np.random.Generator, samples: str, blocks: int
) -> None:
    held = coverage(simulate(rng, EXPERIMENTS, blocks, samples=samples))
    assert 0.93 <= held.ratio <= 0.97
    assert 0.93 <= held.difference <= 0.97
    assert abs(held.ratio_shift - held.nominal_shift) <= 1.5 * NOISE


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("effect", ["normal", "Student's t, 5 degrees", *SKEWED])
def test_intervals_cover_whatever_the_effects_between_blocks_look_like(
    rng: np.random.Generator, effect: str, blocks: int
) -> None:
    held = coverage(simulate(rng, EXPERIMENTS, blocks, effect=effect))
    assert 0.93 <= held.ratio <= 0.97
    assert 0.93 <= held.difference <= 0.97
    if effect not in SKEWED:
        assert abs(held.ratio_shift - held.nominal_shift) <= 1.5 * NOISE


@pytest.mark.parametrize("effect", ["one block in ten disturbed", "two levels, half of the blocks on each"])
def test_disturbed_blocks_and_blocks_on_two_levels_only_widen_the_intervals(
    rng: np.random.Generator, effect: str
) -> None:
    held = coverage(simulate(rng, EXPERIMENTS, 12, effect=effect))
    assert 0.95 <= held.ratio <= 0.985
    assert 0.95 <= held.difference <= 0.985


@pytest.mark.parametrize(("effect", "least"), [("exponential, skewness 2", 0.93), ("lognormal, skewness 6", 0.90)])
def test_extreme_skew_costs_the_coverage_that_the_documentation_admits(
    rng: np.random.Generator, effect: str, least: float
) -> None:
    assert coverage(simulate(rng, EXPERIMENTS, 12, effect=effect)).ratio >= least


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("edge", [1.0 + MARGIN, 1.0 / (1.0 + MARGIN)])
@pytest.mark.parametrize("effect", SYMMETRICAL)
def test_arms_at_the_edge_of_the_margin_rarely_pass_for_equivalent(
    rng: np.random.Generator, effect: str, edge: float, blocks: int
) -> None:
    made = simulate(rng, EXPERIMENTS, blocks, effect=effect, spread=0.08, log_ratio=math.log(edge))
    assert equivalent(made, MARGIN) <= 0.05 + NOISE


@pytest.mark.parametrize("spread", [0.1, 0.15, 0.25])
def test_the_blocks_advised_give_the_power_promised(rng: np.random.Generator, spread: float) -> None:
    blocks = blocks_needed(spread, MARGIN)
    alike = simulate(rng, EXPERIMENTS, blocks, spread=spread, log_ratio=0.0)
    apart = simulate(rng, EXPERIMENTS, blocks, spread=spread, log_ratio=math.log1p(MARGIN))
    powers = equivalent(alike, MARGIN), different(apart)
    assert min(powers) == pytest.approx(0.80, abs=0.04)


def test_the_blocks_advised_for_a_ratio_give_the_power_promised(rng: np.random.Generator) -> None:
    blocks = blocks_needed(0.1, MARGIN, true_ratio=1.05)
    made = simulate(rng, EXPERIMENTS, blocks, spread=0.1, log_ratio=math.log(1.05))
    assert max(equivalent(made, MARGIN), different(made)) == pytest.approx(0.80, abs=0.04)


def test_holm_keeps_the_chance_of_any_false_difference(rng: np.random.Generator) -> None:
    blocks, arms = 12, 5
    baseline = rng.standard_normal((EXPERIMENTS, blocks))
    counts = resampling_counts(blocks, RESAMPLES, 0)
    # One baseline for all, so the tests depend on each other.
    columns = [rng.standard_normal((EXPERIMENTS, blocks)) - baseline for _ in range(arms)]
    p_values = np.stack([studentised_mean(column, counts).p_zero() for column in columns], axis=-1)
    adjusted = np.stack([holm(row) for row in p_values])
    assert np.mean((p_values <= 0.05).any(axis=1)) > 0.10
    assert np.mean((adjusted <= 0.05).any(axis=1)) <= 0.05 + NOISE


def test_what_is_calibrated_is_what_compare_returns(rng: np.random.Generator) -> None:
    made = simulate(rng, 5, 12, samples="gamma, shape 2")
    low, high = studentised_mean(made.logs, resampling_counts(12, RESAMPLES, 7)).interval(0.95)
    for at in range(5):
        ratio = compare(made.baseline[at], made.candidate[at], margin=MARGIN, resamples=RESAMPLES, seed=7).ratio
        assert (ratio.low, ratio.high) == pytest.approx((math.exp(low[at]), math.exp(high[at])))


def test_a_summary_s_intervals_cover_for_samples_that_depend_on_each_other(rng: np.random.Generator) -> None:
    count, phi = 1000, 0.7
    deviation = 1.0 / math.sqrt(1.0 - phi**2)
    series = np.asarray(lfilter([1.0], [1.0, -phi], rng.standard_normal((300, count + 100))))[:, 100:]
    summaries = [summarise(each) for each in series]
    mean = np.mean([each.mean.low <= 0.0 <= each.mean.high for each in summaries])
    p95 = 1.6449 * deviation
    median = np.mean([each.p50.low <= 0.0 <= each.p50.high for each in summaries if each.p50.low and each.p50.high])
    upper = np.mean([each.p95.low <= p95 <= each.p95.high for each in summaries if each.p95.low and each.p95.high])
    assert 0.91 <= mean <= 0.98
    assert 0.91 <= median <= 0.98
    assert 0.91 <= upper <= 0.99
    naive = 1.96 * series.std(axis=1) / math.sqrt(count)
    assert np.mean(np.abs(series.mean(axis=1)) <= naive) < 0.75


def test_every_effect_has_mean_zero_and_deviation_one(rng: np.random.Generator) -> None:
    for name in set(EFFECTS) - {"lognormal, skewness 6"}:
        drawn = EFFECTS[name](rng, (400_000,))
        assert float(drawn.mean()) == pytest.approx(0.0, abs=0.01)
        assert float(drawn.std()) == pytest.approx(1.0, abs=0.02)
