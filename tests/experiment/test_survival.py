"""How long requests wait after a fault: the curve is the truth's, and its interval counts blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.experiment.fabricated import Truth, fabricate, plan_of
from tests.experiment.test_analysis import KILL, arm
from tests.long_form import SOAK

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.survival import TOLD_S, Waits, waiting_curve
from anywire_experiment.report import page

EXPERIMENTS = 2000 if SOAK else 300
CASES = st.tuples(st.floats(0, 20), st.sampled_from(["answered", "failed", "given up"]))


def waits(*cases: tuple[float, str]) -> Waits:
    return Waits(
        np.array([seconds for seconds, _ in cases], dtype=np.float64),
        np.array([end == "answered" for _, end in cases], dtype=bool),
        np.array([end == "given up" for _, end in cases], dtype=bool),
    )


def test_no_request_met_the_fault() -> None:
    assert waiting_curve([], 0.95) is None
    assert waiting_curve([waits(), waits()], 0.95) is None


def test_it_is_the_share_that_is_not_answered() -> None:
    found = waiting_curve(
        [waits((0.5, "answered"), (2.0, "answered")), waits((0.1, "failed"), (5.0, "answered"))], 0.95
    )
    assert found is not None
    assert (found.requests, found.blocks, found.low) == (4, 2, [])
    assert [found.waiting[found.at(at)] for at in TOLD_S] == [1.0, 0.75, 0.25]
    assert found.waiting[-1] == 0.25


def test_one_that_was_given_up_is_watched_until_then() -> None:
    """Kaplan and Meier by hand: of 4, one answered at 1, one given up at 2, one answered at 3, one at 4."""
    cases = waits((1.0, "answered"), (2.0, "given up"), (3.0, "answered"), (4.0, "answered"))
    found = waiting_curve([cases], 0.95)
    assert found is not None
    by_time = dict(zip(found.seconds, found.waiting, strict=True))
    assert (by_time[1.0], by_time[3.0], by_time[4.0]) == pytest.approx((0.75, 0.375, 0.0))


@given(st.lists(st.lists(CASES, max_size=30), min_size=1, max_size=15))
def test_a_curve_falls_and_its_limits_hold_it(blocks: list[list[tuple[float, str]]]) -> None:
    found = waiting_curve([waits(*each) for each in blocks], 0.95)
    if found is None:
        assert not any(blocks)
        return
    assert found.seconds == sorted(set(found.seconds))
    assert found.waiting == sorted(found.waiting, reverse=True)
    assert all(0.0 <= each <= 1.0 for each in found.waiting)
    if sum(bool(each) for each in blocks) >= 6:
        for low, value, high in zip(found.low, found.waiting, found.high, strict=True):
            assert 0.0 <= low <= value + 1e-9
            assert value - 1e-9 <= high <= 1.0
    else:
        assert found.low == found.high == []


@pytest.mark.parametrize("given_up", [0.0, 0.2])
@pytest.mark.parametrize("spread", [0.0, 0.8])
@pytest.mark.parametrize("blocks", [6, 12, 24])
def test_the_interval_holds_the_truth(blocks: int, spread: float, given_up: float) -> None:
    """Requests of a block wait together: their mean is lognormal over blocks; one in twenty fails."""
    rng = np.random.default_rng(3)
    means = np.exp(spread * rng.normal(size=200_000))
    truth = 0.05 + 0.95 * float(np.mean(np.exp(-1.0 / means)))
    held = 0
    for _ in range(EXPERIMENTS):
        made = []
        for mean in np.exp(spread * rng.normal(size=blocks)):
            seconds = rng.exponential(mean, 30)
            failed = rng.random(30) < 0.05
            until = np.where(rng.random(30) < given_up, rng.exponential(2.0, 30), np.inf)
            gone = until < seconds
            made.append(Waits(np.minimum(seconds, until), ~failed & ~gone, gone & ~failed))
        found = waiting_curve(made, 0.95)
        assert found is not None
        at = found.at(1.0)
        held += found.low[at] <= truth <= found.high[at]
    assert held / EXPERIMENTS > 0.95 - 0.02 - 3 * np.sqrt(0.05 * 0.95 / EXPERIMENTS)


def test_requests_that_met_the_fault_are_those_under_way_and_those_that_came_meanwhile(tmp_path: Path) -> None:
    """One each 10 ms, answered 600 ms after the fault if they were sent before; it lasts as long as nothing ends it."""
    folder = fabricate(tmp_path, plan_of(workloads={"kill": KILL}), {"dds": Truth(notice_ms=600), "zeromq": Truth()})
    results = analyse(folder)
    slow, quick = (arm(results, name, "kill").fault for name in ("dds", "zeromq"))
    assert slow is not None
    assert quick is not None
    assert slow.waiting is not None
    assert quick.waiting is not None
    assert slow.waiting.waiting[slow.waiting.at(0.1)] >= quick.waiting.waiting[quick.waiting.at(0.1)]
    assert slow.waiting.waiting[-1] == 0.0
    text = page.html(RawData(folder), results)
    assert "Not answered after 1" in text
    assert "share not answered" in text


def test_blocks_in_which_all_is_answered_are_alike_however_many_requests_they_had() -> None:
    """Else their order would be that of their sizes, or of rounding, and so would be how much each depends on the one
    before."""
    rng = np.random.default_rng(0)

    def limits(*sizes: int) -> tuple[float, float]:
        blocks = []
        for at, size in enumerate(sizes):
            failing = 30 if at == 6 else 0
            ends = np.arange(size) < failing
            blocks.append(Waits(np.where(ends, np.inf, rng.uniform(0, 0.5, size)), ~ends, np.zeros(size, bool)))
        found = waiting_curve(blocks, 0.95)
        assert found is not None
        return found.low[found.at(1.0)], found.high[found.at(1.0)]

    assert limits(*[300] * 8, *[351] * 8) == pytest.approx(limits(*[325] * 16), rel=0.2)
