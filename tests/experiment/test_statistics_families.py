"""Large families of comparisons: a clear difference is found, and chance is not taken for one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from tests.long_form import SOAK, TIMES

from anywire_experiment.statistics import Outcome, as_family, compare, verdict
from anywire_experiment.statistics.calibration import family_error, simulate
from anywire_experiment.statistics.studentised import resampling_counts, studentised_mean
from anywire_experiment.statistics.tail import tail_probability

FAMILY = 300


def pair(rng: np.random.Generator, ratio: float, blocks: int, noise: float = 0.02) -> tuple[list[float], list[float]]:
    """Block values of two arms, each with ``noise`` of its own."""
    common = rng.lognormal(0.0, 0.3, blocks)
    return (
        (common * np.exp(noise * rng.standard_normal(blocks))).tolist(),
        (ratio * common * np.exp(noise * rng.standard_normal(blocks))).tolist(),
    )


@pytest.mark.parametrize(("blocks", "level"), [(12, 0.95), (40, 0.95), (40, 0.99)])
def test_a_threefold_difference_is_found_among_three_hundred_comparisons(blocks: int, level: float) -> None:
    rng = np.random.default_rng(6)
    made = {at: pair(rng, 3.0 if at == 0 else 1.0, blocks) for at in range(FAMILY)}
    family = as_family({at: compare(*each, margin=0.1, level=level) for at, each in made.items()})
    said = {at: verdict(each) for at, each in family.items()}
    assert (said[0].outcome, said[0].different) == (Outcome.WORSE, True)
    assert [at for at, each in said.items() if each.different] == [0]
    # Equal arms are shown to be equivalent in such a family too.
    assert {each.outcome for at, each in said.items() if at} == {Outcome.EQUIVALENT}


@pytest.mark.parametrize("blocks", [12, 40])
@pytest.mark.parametrize("effect", ["normal", "Student's t, 5 degrees", "one block in ten disturbed"])
def test_a_large_family_keeps_the_chance_of_any_false_difference(effect: str, blocks: int) -> None:
    """Of arms that are alike, whose log ratios are therefore symmetrical. In full with ANYWIRE_SOAK."""
    experiments = 400 if SOAK else 40
    share = family_error(np.random.default_rng(30), experiments, blocks, FAMILY, effect=effect)
    assert share <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / experiments)


def test_the_fitted_tail_agrees_with_a_million_resamples() -> None:
    """Where 10,000 can count nothing, by a factor of five either way; of twenty, one may be farther off."""
    rng, off = np.random.default_rng(8), 0
    many = resampling_counts(15, 1_000_000, 1)
    few = resampling_counts(15, 10_000, 2)
    for _ in range(20):
        values = 0.13 * rng.standard_normal(15)
        known, fitted = studentised_mean(values, many), studentised_mean(values, few)
        at = np.array([np.quantile(known.resampled, 1 - 2e-5)])
        found = float(tail_probability(at, fitted.resampled[np.newaxis], 1.0 / 14)[0])
        off += not 2e-5 / 5 <= found <= 2e-5 * 5
    assert off <= 1


def test_a_smaller_p_value_comes_with_a_larger_difference_all_the_way() -> None:
    made = simulate(np.random.default_rng(4), 1, 20, spread=0.05, log_ratio=0.0)
    counts = resampling_counts(20, 10_000, 0)
    shifts = np.linspace(0.0, 3.0, 200)
    p_values = studentised_mean(made.logs - made.logs.mean() + shifts[:, np.newaxis], counts).p_zero()
    assert (np.diff(p_values) <= 1e-12).all()
    assert 0.0 < p_values[-1] < 1e-15
    student = 2 * stats.t.sf(shifts / (made.logs.std(ddof=1) / math.sqrt(20)), 19)
    assert (p_values >= student - 1e-15).all()


def test_blocks_that_never_vary_are_judged_by_their_signs() -> None:
    comparison = compare([1.0] * 12, [2.0] * 12, margin=0.1)
    assert comparison.p_different == pytest.approx(2 / 2**12)


def test_the_long_form_is_longer() -> None:
    assert (TIMES > 1) == SOAK
