"""Two runs of different times compared: limits hold for runs whose truth is known, and no build fails by chance."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.long_form import SOAK

from anywire_experiment.statistics.unpaired import difference, median_side, share_side

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]

EXPERIMENTS = 2000 if SOAK else 400


def ar(phi: float) -> Draw:
    def drawn(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        values = rng.standard_normal(shape)
        for at in range(1, shape[1]):
            values[:, at] = phi * values[:, at - 1] + math.sqrt(1 - phi**2) * values[:, at]
        return values

    return drawn


SHAPES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - math.log(2),
    "exponential, the other way": lambda rng, shape: math.log(2) - rng.exponential(size=shape),
    "Pareto": lambda rng, shape: rng.pareto(1.5, shape) - (2 ** (1 / 1.5) - 1),
    "ties": lambda rng, shape: np.round(rng.standard_normal(shape)),
    "AR(1) of 0.3": ar(0.3),
    "AR(1) of 0.5": ar(0.5),
}


def wrong_at_most(share: float) -> float:
    """That share and what chance may add in so many experiments (three standard errors)."""
    return share + 3 * math.sqrt(share * (1 - share) / EXPERIMENTS)


@pytest.mark.parametrize("blocks", [16, 24, 40])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_difference_is_shown_of_runs_that_are_alike(shape: str, blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    for scales in ((1, 1), (1, 3), (3, 1)):
        before, after = (scale * SHAPES[shape](rng, (EXPERIMENTS, blocks)) for scale in scales)
        found = difference(median_side(before, 0.90), median_side(after, 0.90))
        assert (found.low > 0).mean() <= wrong_at_most(0.05)
        assert (found.high < 0).mean() <= wrong_at_most(0.05)


@pytest.mark.parametrize("tests", [20, 200])
def test_of_many_tests_none_is_wrong(tests: int) -> None:
    rng = np.random.default_rng(tests)
    level = 1 - 2 * 0.05 / tests
    families = EXPERIMENTS // 20
    wrong = 0
    for _ in range(families):
        sides = [median_side(rng.standard_normal((tests, 24)), level) for _ in range(2)]
        wrong += bool((difference(*sides).low > 0).any())
    assert wrong / families <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / families)


def test_what_is_there_is_found() -> None:
    rng = np.random.default_rng(3)
    before, after = (rng.standard_normal((EXPERIMENTS, 24)) for _ in range(2))
    found = difference(median_side(before, 0.90), median_side(after + 1.5, 0.90))
    assert (found.low > 0).mean() >= 0.9
    assert np.allclose(found.value, np.median(after, axis=1) + 1.5 - np.median(before, axis=1))


def test_shares_that_are_alike_are_not_shown_to_differ() -> None:
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(EXPERIMENTS):
        sides = []
        for _ in range(2):
            failing = np.where(rng.random(20) < 0.2, 0.3, 0.02)  # requests of a block fail together
            sides.append(share_side([int(each) for each in rng.binomial(100, failing)], [100] * 20, 0.90))
        wrong += bool(difference(*sides).low > 0)
    assert wrong / EXPERIMENTS <= wrong_at_most(0.05)


def test_a_share_that_grew_is_found() -> None:
    before = share_side([1, 0, 2, 1] * 5, [100] * 20, 0.95)
    after = share_side([30, 28, 33, 31] * 5, [100] * 20, 0.95)
    assert difference(before, after).low > 0.2
    with pytest.raises(ValueError, match="takes 2 blocks or more"):
        share_side([1], [10], 0.95)


def test_too_few_blocks_have_no_limits() -> None:
    side = median_side(np.arange(5.0), 1 - 2e-6)
    assert (float(side.low), float(side.high)) == (-math.inf, math.inf)
    found = difference(side, side)
    assert (float(found.low), float(found.high)) == (-math.inf, math.inf)
