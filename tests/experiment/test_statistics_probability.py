"""Probabilities and quantiles are those of scipy.stats, which is too slow to import; ranks and the worth of a series
those that SciPy gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import correlate

from anywire_experiment.statistics import effective_sample_size, probability, summarise

Floats = NDArray[np.float64]

CHANCES = st.floats(1e-9, 1.0 - 1e-9)
DEGREES = st.integers(1, 100_000) | st.floats(1.0, 1e5)
SHAPES = st.floats(1e-3, 1e5)
VALUES = st.floats(-50.0, 50.0)
LEVELS = (0.005, 0.025, 0.05, 0.95, 0.975, 0.995)


def same(found: Any, wanted: Any, least: float = 1e-300) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=least)


@given(CHANCES, DEGREES)
def test_quantiles_are_those_of_scipy(chance: float, degrees: float) -> None:
    same(probability.normal_quantile(chance), stats.norm.ppf(chance))
    same(-probability.normal_quantile(chance), stats.norm.isf(chance))
    same(probability.student_quantile(chance, degrees), stats.t.ppf(chance, degrees))
    same(-probability.student_quantile(chance, degrees), stats.t.isf(chance, degrees))
    same(probability.chi_squared_quantile(chance, degrees), stats.chi2.ppf(chance, degrees))


@given(VALUES, DEGREES, st.integers(1, 100), st.integers(1, 10_000))
@example(np.inf, 11.0, 1, 1)
@example(-np.inf, 11.0, 1, 1)
def test_chances_of_more_are_those_of_scipy(value: float, degrees: float, above: int, below: int) -> None:
    same(probability.normal_above(value), stats.norm.sf(value))
    same(probability.student_above(value, degrees), stats.t.sf(value, degrees))
    same(probability.f_above(abs(value), above, below), stats.f.sf(abs(value), above, below))


@given(CHANCES, SHAPES, SHAPES)
def test_the_beta_distribution_is_that_of_scipy(chance: float, a: float, b: float) -> None:
    same(probability.beta_up_to(chance, a, b), stats.beta.cdf(chance, a, b))
    same(probability.beta_quantile(chance, a, b), stats.beta.ppf(chance, a, b))


@given(st.integers(1, 2000), st.floats(0.001, 0.999))
def test_the_binomial_distribution_is_that_of_scipy(attempts: int, chance: float) -> None:
    counts = np.arange(-1, attempts + 2)
    # SciPy's are 0 from some 1e-250 on.
    same(probability.binomial_up_to(counts, attempts, chance), stats.binom.cdf(counts, attempts, chance), 1e-200)
    same(probability.binomial_above(counts, attempts, chance), stats.binom.sf(counts, attempts, chance), 1e-200)
    for level in LEVELS:
        assert probability.binomial_quantile(level, attempts, chance) == stats.binom.ppf(level, attempts, chance)


@given(
    st.lists(st.integers(-3, 3) | st.floats(-1e300, 1e300), min_size=1, max_size=40),
    st.permutations(range(3)),
)
def test_ranks_are_those_of_scipy(values: list[float], order: list[int]) -> None:
    series = np.array(values, dtype=np.float64)
    rows = np.array([series, series[::-1], np.sort(series)])[order]
    assert np.array_equal(probability.ranks(series), stats.rankdata(series))
    assert np.array_equal(probability.ranks(rows), stats.rankdata(rows, axis=-1))


def by_scipy(series: Floats) -> float:
    """The effective sample size with the correlations that `scipy.signal` gives."""
    centred = series - series.mean()
    known = correlate(centred, centred, method="fft")[series.size - 1 :] / float(centred @ centred)
    pairs = known[: series.size // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0.0)
    initial = np.minimum.accumulate(pairs[: ends[0]] if ends.size else pairs)
    return max(series.size / max(2.0 * float(initial.sum()) - 1.0, 1.0), 1.0)


@given(st.integers(0, 2**32 - 1), st.integers(3, 700), st.floats(-0.9, 0.99))
def test_the_worth_of_a_series_is_that_of_its_correlations_to_the_last_bit(seed: int, count: int, lag1: float) -> None:
    noise = np.random.default_rng(seed).standard_normal(count)
    series = noise.copy()
    for at in range(1, count):
        series[at] += lag1 * series[at - 1]
    assert effective_sample_size(series) == by_scipy(series)


@given(st.integers(0, 50), st.integers(2, 300), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_share_of_failures_has_the_interval_of_wilson(failures: int, samples: int, level: float) -> None:
    known: Any = stats.binomtest(failures, samples + failures).proportion_ci(level, method="wilson")
    found = summarise(np.arange(float(samples)), failures=failures, level=level).failed
    assert (found.low, found.high) == pytest.approx((known.low, known.high), rel=1e-12, abs=1e-15)
