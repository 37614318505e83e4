"""A verdict on latencies is one on all requests and blocks: what failed or is missing cannot make an arm look good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.experiment.fabricated import Truth, fabricate, plan_of
from tests.experiment.test_analysis import LATENCY, arm, comparison, rewritten
from tests.long_form import SOAK

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.survivors import Ends, Sides, bounded, bounded_shares, ends_of
from anywire_experiment.statistics import FEWEST_BLOCKS, Comparison, Outcome, ShareComparison, compare, compare_shares

EXPERIMENTS = 300 if SOAK else 10
SHAPES = ("normal", "pareto", "t3", "exponential", "rare")[: None if SOAK else 2]
RATIOS = (1.1, 1.0, 1.3)[: None if SOAK else 1]
MARGIN, ALPHA = 0.10, 0.05


# One block


@given(
    st.lists(st.floats(0.1, 1e4), min_size=1, max_size=60),
    st.integers(0, 60),
    st.sampled_from(["median", "p90", "p95", "p99"]),
)
def test_a_percentile_is_one_of_all_requests(answered: list[float], failed: int, statistic: str) -> None:
    """As if each request that failed had taken longer than any bound, and never outside of what it may have been."""
    found = ends_of(np.array(answered), failed, statistic, ceiling=30_000.0)
    share = 0.5 if statistic == "median" else float(statistic[1:]) / 100
    all_of_them = np.concatenate([answered, np.full(failed, 1e12)])
    truth = float(np.quantile(all_of_them, share))
    if found.value is None:
        assert truth > 1e5
    else:
        assert found.value == pytest.approx(truth)
        assert found.low <= found.value * (1 + 1e-12)
        assert found.value <= found.high * (1 + 1e-12)
    assert min(answered) <= found.low * (1 + 1e-12)
    assert found.high <= 30_000.0


def test_the_mean_takes_failed_requests_for_as_long_as_a_client_waits() -> None:
    assert ends_of(np.array([1.0, 3.0]), 1, "mean", ceiling=30.0) == Ends(34 / 3, 5 / 3, 34 / 3)


# A whole record


def dropping_the_slow(folder: Path, share: float) -> None:
    """In each block of dds the slowest requests fail, with an error that comes at once."""
    for block in range(1, 17):
        cell = folder / f"cells/b{block:03}/dds"
        table = pq.read_table(cell / "samples.parquet")
        took = table["done_ns"].to_numpy() - table["intended_ns"].to_numpy()
        slow = took > np.quantile(took[5:], 1 - share)
        outcomes = np.where(slow, "queue_full", table["outcome"].to_numpy())
        done = np.where(slow, table["intended_ns"].to_numpy() + 1000, table["done_ns"].to_numpy())
        rewritten(cell, outcome=outcomes.tolist(), done_ns=done.tolist())


def test_an_arm_that_drops_its_slow_requests_is_not_faster(tmp_path: Path) -> None:
    """Alike but for that: of the answers alone dds would be faster by 10 % and more."""
    folder = fabricate(tmp_path, plan_of(margin=0.05) | LATENCY)
    dropping_the_slow(folder, 0.4)
    found = comparison(analyse(folder))
    assert found.comparison is not None
    assert found.comparison.ratio.value == pytest.approx(1.0, abs=0.03)
    assert found.verdict is None
    assert found.bounds is not None
    assert found.bounds.low < 0.95
    assert "not judged, for 40 % of the requests of dds failed, so all requests" in found.sentence
    assert "compare goodput under an `objective`" in found.sentence


def test_an_arm_that_is_slower_whatever_the_failed_would_have_shown_is_slower(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(), {"dds": Truth(factor=2.0, failing=0.05)})
    found = comparison(analyse(folder))
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.WORSE
    assert found.bounds is not None
    assert 1.5 < found.bounds.low < found.bounds.high < 2.5
    assert found.bounds.failed_candidate == pytest.approx(0.05, abs=0.02)
    assert found.bounds.failed_baseline == 0.0


def test_where_most_requests_fail_there_is_no_median(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(), {"dds": Truth(failing=0.7)}))
    found = comparison(results)
    assert (found.comparison, found.verdict) == (None, None)
    assert "of the requests of dds failed, so that the median of all lies among them" in found.excluded[1]
    assert arm(results, "dds").metrics["latency"].typical is None


def test_percentiles_that_lie_among_the_failures_are_not_told(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(), {"dds": Truth(failing=0.03)}))
    found = arm(results, "dds").metrics["latency"].percentiles
    assert found is not None
    assert found.p90 is not None
    assert found.p99 is None
    without = arm(results, "zeromq").metrics["latency"].percentiles
    assert without is not None
    assert without.p99 is not None


def test_a_missing_block_may_have_been_anything(tmp_path: Path) -> None:
    """The slowest block of dds has failed; without it both would be equivalent."""
    folder = fabricate(tmp_path, plan_of(blocks=20) | LATENCY, {"dds": Truth(broken=frozenset({3}))})
    found = comparison(analyse(folder))
    assert found.comparison is not None
    assert found.bounds is not None
    assert (found.bounds.blocks, found.bounds.missing) == (20, 1)
    if found.verdict is None:
        assert "1 of 20 blocks are missing: what is missing may have been the slowest or the fastest" in found.sentence


def test_requests_that_their_clients_gave_up_are_neither_answered_nor_failed(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(), {"dds": Truth(failing=0.1, code="cancelled")})
    results = analyse(folder)
    assert arm(results, "dds").failed == 0
    found = comparison(results)
    assert found.bounds is None
    assert [each for each in found.caution if "were given up by their clients" in each]


# Missing, and not at random


def drawn(rng: np.random.Generator, shape: str, size: int) -> NDArray[np.float64]:
    match shape:
        case "normal":
            return rng.normal(size=size)
        case "t3":
            return np.asarray(rng.standard_t(3, size=size) / np.sqrt(3))
        case "exponential":
            return np.asarray(rng.exponential(size=size) - 1)
        case "pareto":
            return np.asarray(rng.pareto(2.5, size=size) - 1 / 1.5)
        case _:
            return np.asarray(rng.normal(size=size) + 6 * (rng.random(size) < 0.05))


def judged(ratios: list[float]) -> Comparison:
    return compare([1.0] * len(ratios), ratios, margin=MARGIN)


def said(found: Comparison) -> str:
    if found.blocks < FEWEST_BLOCKS or found.order.too_dependent:
        return ""
    if found.p_equivalent <= ALPHA:
        return "equivalent"
    if found.p_different <= ALPHA:
        return "slower" if found.ratio.value > 1 else "faster"
    return ""


def with_missing(shape: str, true: float, missing: int, experiments: int) -> Iterator[tuple[str, str, str]]:
    """What is said of all blocks, of those that are there alone, and of these with regard to what is missing: the
    slowest blocks of the candidate, or its fastest."""
    rng = np.random.default_rng(5)
    for number in range(experiments):
        logs = np.log(true) + 0.06 * drawn(rng, shape, 17 + missing)
        order = np.argsort(logs)
        kept = np.sort(order[:-missing] if number % 2 else order[missing:])
        whole, part = judged(np.exp(logs).tolist()), judged(np.exp(logs[kept]).tolist())
        sides = Sides(
            {int(at): Ends(1.0, 1.0, 1.0) for at in range(logs.size)},
            {int(at): Ends(value, value, value) for at in kept if (value := float(np.exp(logs[at])))},
            (0.0, 0.0),
        )
        held, bounds = bounded(part, judged, sides, range(logs.size))
        assert bounds is not None
        yield said(whole), said(part), said(held)


@pytest.mark.parametrize("missing", [1, 3])
@pytest.mark.parametrize("true", RATIOS)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_that_are_missing_not_at_random_never_give_a_verdict_that_all_would_not(
    shape: str, true: float, missing: int
) -> None:
    """The slowest blocks of the candidate are missing, or its fastest."""
    made = list(with_missing(shape, true, missing, EXPERIMENTS))
    assert [each for each in made if each[2] not in ("", each[0])] == []


@pytest.mark.parametrize(("missing", "remains"), [(1, 0.82), (3, 0.48)])
def test_most_verdicts_remain_beside_missing_blocks(missing: int, remains: float) -> None:
    """As many as the page of statistics says, of those that the blocks that are there give by themselves; without
    ANYWIRE_SOAK of so few experiments that hardly more than the order of it is checked."""
    found = [each for shape in SHAPES for true in RATIOS for each in with_missing(shape, true, missing, EXPERIMENTS)]
    given = [held == part for _, part, held in found if part]
    assert np.mean(given) == pytest.approx(remains, abs=0.04 if SOAK else 0.3)


def test_missing_shares_may_have_been_all_or_nothing() -> None:
    before, after = dict.fromkeys(range(40), 0.5), {block: 0.5 + 0.01 * (block % 2) for block in range(39)}

    def judge(first: list[float], second: list[float]) -> ShareComparison:
        return compare_shares(first, second, margin=0.2, resamples=1000)

    found = judge(list(before.values())[:39], list(after.values()))
    held, bounds = bounded_shares(found, judge, before, after, range(40))
    assert bounds is not None
    assert (bounds.blocks, bounds.missing) == (40, 1)
    assert found.p_equivalent < ALPHA < held.p_equivalent
    assert bounded_shares(found, judge, before, before, range(40)) == (found, None)
