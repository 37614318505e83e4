"""Large families of comparisons: a clear difference is found, and chance is not taken for one."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from tests.long_form import SOAK, TIMES

from anywire_experiment.statistics import Outcome, as_family, compare, fewest_blocks, verdict
from anywire_experiment.statistics.calibration import family_error
from anywire_experiment.statistics.family_calibration import most_false
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


@pytest.mark.parametrize(("blocks", "level"), [(16, 0.95), (40, 0.95), (40, 0.99)])
def test_a_threefold_difference_is_found_among_three_hundred_comparisons(blocks: int, level: float) -> None:
    rng = np.random.default_rng(6)
    made = {at: pair(rng, 3.0 if at == 0 else 1.0, blocks) for at in range(FAMILY)}
    family = as_family({at: compare(*each, margin=0.1, level=level) for at, each in made.items()})
    said = {at: verdict(each) for at, each in family.items()}
    assert (said[0].outcome, said[0].different) == (Outcome.WORSE, True)
    assert [at for at, each in said.items() if each.different] == [0]
    # Equal arms are shown to be equivalent in such a family too.
    assert sum(each.outcome is Outcome.EQUIVALENT for at, each in said.items() if at) >= 0.99 * (FAMILY - 1)


def test_thousands_of_comparisons_are_judged_in_seconds() -> None:
    """2,000 in 10 s of processor time with ANYWIRE_SOAK. Most of it is what they share, the simulated power of each
    number of blocks; the 100 of the short form have spreads that share more of it."""
    rng = np.random.default_rng(7)
    count, seconds, widest = (2000, 10.0, 0.3) if SOAK else (100, 5.0, 0.05)
    made = [pair(rng, 3.0 if at < 3 else 1.0, 17, noise=rng.uniform(0.01, widest)) for at in range(count)]
    began = time.process_time()
    family = as_family({at: compare(*each, margin=0.1) for at, each in enumerate(made)})
    said = [verdict(each) for each in family.values()]
    assert time.process_time() - began < seconds
    assert [each.different for each in said[:3]] == [True] * 3


@pytest.mark.parametrize(("family", "least"), [(1, 16), (1638, 16), (1639, 17), (3276, 17), (3277, 18)])
def test_a_family_too_large_for_its_blocks_is_known_beforehand(family: int, least: int) -> None:
    assert fewest_blocks(family) == least
    clear = compare([1.0] * least, [3.0 + 0.01 * (at % 3) for at in range(least)], margin=0.1)
    assert clear.p_different * family <= 0.05


NULL = ["normal", "exponential", "Pareto, α = 1.5", "one block in twenty 6 deviations slower"]


@pytest.mark.timeout(3600 if SOAK else 120)
@pytest.mark.parametrize("effect", NULL)
@pytest.mark.parametrize(("family", "blocks"), [(2, 16), (20, 16), *([(300, 40), (2000, 40)] if SOAK else ())])
def test_a_family_keeps_the_chance_of_any_false_difference(effect: str, family: int, blocks: int) -> None:
    """Of arms that do not differ in the median, with skew too. 6 % are promised. Large families with ANYWIRE_SOAK."""
    experiments = 2000 if SOAK else 500
    share = family_error(np.random.default_rng(30), experiments, blocks, family, effect=effect)
    assert share <= 0.05 + (0.01 if SOAK else 2.5 * math.sqrt(0.05 * 0.95 / experiments))


@pytest.mark.parametrize("effect", NULL)
@pytest.mark.parametrize("family", [2, 20, 300, 2000])
def test_no_family_shows_a_false_difference_more_often_than_promised(effect: str, family: int) -> None:
    """Known to a fraction of a point, from the exact chance without drifts and from drifts alone that are none."""
    for blocks in (17, 25, 40) if SOAK else (17, 25):
        share = most_false(np.random.default_rng(31), 20_000 if SOAK else 4000, blocks, family, effect=effect)
        assert 0.003 <= share <= 0.06


def test_what_is_known_of_families_agrees_with_families_simulated() -> None:
    for family, blocks in ((2, 17), (20, 24)):
        known = most_false(np.random.default_rng(32), 4000, blocks, family, effect="exponential")
        found = family_error(np.random.default_rng(33), 1000, blocks, family, effect="exponential")
        assert known - 0.02 <= found <= known + 0.02


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


def test_the_long_form_is_longer() -> None:
    assert (TIMES > 1) == SOAK
