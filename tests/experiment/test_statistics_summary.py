"""Summary, effective sample size and steady state of one series."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter
from tests.long_form import examples

from anywire_experiment.statistics import effective_sample_size, steady_from, step_in, summarise
from anywire_experiment.statistics.steady_calibration import NOISE, refused

Floats = NDArray[np.float64]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def autoregressive(rng: np.random.Generator, phi: float, shape: tuple[int, int]) -> Floats:
    noise = rng.standard_normal((shape[0], shape[1] + 200))
    return np.asarray(lfilter([1.0], [1.0, -phi], noise), dtype=np.float64)[:, 200:]


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6, 0.9])
def test_effective_sample_size_is_that_of_the_theory(rng: np.random.Generator, phi: float) -> None:
    shares = [effective_sample_size(series) / 5000 for series in autoregressive(rng, phi, (40, 5000))]
    assert float(np.mean(shares)) == pytest.approx((1.0 - phi) / (1.0 + phi), rel=0.06)


def test_samples_that_swing_about_their_mean_count_once_each(rng: np.random.Generator) -> None:
    assert effective_sample_size(autoregressive(rng, -0.6, (1, 2000))[0]) == 2000.0


def test_a_constant_series_counts_as_it_is() -> None:
    assert effective_sample_size(np.full(50, 0.1)) == 50.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_effective_sample_size_lies_between_one_and_the_number(samples: list[float]) -> None:
    assert 1.0 <= effective_sample_size(samples) <= len(samples)


def test_percentile_limits_of_independent_samples_are_the_order_statistics_of_scipy() -> None:
    ordered = np.arange(200.0)
    # Low and high in turn: as good as independent for the median, and certain to be seen so.
    series = np.stack([ordered[:100], ordered[100:]], axis=1).ravel()
    told: Any = stats.quantile_test(series, p=0.5).confidence_interval(0.95)
    median = summarise(series).median
    assert (median.low, median.high) == (told.low, told.high)


def test_few_samples_do_not_bound_the_last_percentile(rng: np.random.Generator) -> None:
    summary = summarise(rng.permutation(100.0 + np.arange(100.0)))
    assert summary.p99.high is None
    assert summary.p99.low is not None
    assert summary.p99.low <= summary.p99.value


def test_failures_are_counted_apart(rng: np.random.Generator) -> None:
    samples = rng.gamma(2.0, size=90)
    summary, alone = summarise(samples, failures=10), summarise(samples)
    assert (summary.samples, summary.failures, summary.failed.value) == (90, 10, 0.1)
    assert summary.failed.low < 0.1 < summary.failed.high
    assert (summary.mean, summary.p95) == (alone.mean, alone.p95)


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1000.0))
def test_a_summary_scales_with_its_unit(seed: int, factor: float) -> None:
    samples = np.random.default_rng(seed).lognormal(0.0, 0.5, 300)
    one, other = summarise(samples), summarise(factor * samples)
    assert other.mean.low == pytest.approx(factor * one.mean.low)
    assert other.p90.value == pytest.approx(factor * one.p90.value)
    assert one.p50.value <= one.p90.value <= one.p95.value <= one.p99.value <= one.maximum


@pytest.mark.parametrize(
    ("samples", "said"),
    [([], "0 given"), ([1.0], "1 given"), ([1.0, float("nan")], "number 1 is nan"), ([[1.0, 2.0]], "shape")],
)
def test_what_cannot_be_summarised_is_said(samples: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        summarise(samples)


def test_a_count_of_failures_is_no_negative_number() -> None:
    with pytest.raises(ValueError, match="failures"):
        summarise([1.0, 2.0], failures=-1)


def share_steady(series: Floats) -> float:
    return float(np.mean([steady_from(each) is not None for each in series]))


def test_steady_latencies_are_steady_stragglers_or_not(rng: np.random.Generator) -> None:
    series = rng.lognormal(0.0, 0.3, (100, 1000))
    assert share_steady(series) >= 0.9
    assert share_steady(series + 20.0 * (rng.random(series.shape) < 0.01)) >= 0.9


def test_the_warm_up_is_cut_off(rng: np.random.Generator) -> None:
    warming = 1.0 + 2.0 * np.exp(-np.arange(1000) / 30.0)
    cuts = [steady_from(each) for each in rng.lognormal(0.0, 0.3, (100, 1000)) * warming]
    kept = [cut for cut in cuts if cut is not None]
    assert len(kept) >= 90
    assert 50 <= float(np.median(kept)) <= 120


@pytest.mark.parametrize("course", [np.linspace(1.0, 3.0, 1000), np.where(np.arange(1000) < 700, 1.0, 2.0)])
def test_what_drifts_or_changes_its_level_is_not_steady(rng: np.random.Generator, course: Floats) -> None:
    assert share_steady(rng.lognormal(0.0, 0.3, (100, 1000)) * course) <= 0.05


def test_a_step_is_told_with_its_place_and_height(rng: np.random.Generator) -> None:
    series = rng.lognormal(0.0, 0.2, 600) * np.where(np.arange(600) < 120, 1.5, 1.0)
    step = step_in(series)
    assert step.shown
    assert 110 <= step.at <= 130
    assert step.ratio == pytest.approx(1 / 1.5, rel=0.1)
    assert step_in(3.7 * series) == msgspec.structs.replace(step, ratio=step_in(3.7 * series).ratio)


@given(st.lists(st.floats(0.0, 1e9), min_size=100, max_size=160))
def test_any_series_has_a_step_or_none_and_a_steady_state_or_none(series: list[float]) -> None:
    step = step_in(series)
    assert 0 < step.at < len(series)
    assert step.errors >= 0.0
    assert (cut := steady_from(series)) is None or 0 <= cut <= len(series) // 2


def test_a_slow_start_within_a_run_is_found_whatever_its_share(rng: np.random.Generator) -> None:
    """As calibrated; the long form has the whole table."""
    many = examples(100)
    for noise in NOISE:
        for count in (200, 500):
            wrong = refused(rng, many, count, noise=noise)
            assert wrong <= 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / many), (noise, count)
    for course, least in {
        "+50 % in the first 10 %": 0.98,
        "+50 % in the first 20 %": 0.98,
        "+50 % in the first 50 %": 0.98,
        "drift to +50 %": 0.98,
        "+30 % from 70 % on": 0.98,
        "drift to +20 %": 0.6,
    }.items():
        found = refused(rng, many, 500, noise="lognormal, σ = 0.3", course=course)
        assert found >= least - 3.0 * math.sqrt(least * (1 - least) / many), course


def test_a_constant_series_is_steady_from_its_start() -> None:
    assert steady_from(np.full(100, 0.1)) == 0


def test_a_short_series_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        steady_from([1.0] * 99)
