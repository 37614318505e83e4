"""Order, place, interactions, lateness of the load and steadiness, from records whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.design_figures import DesignFigures, PlaceFigures
from anywire_experiment.analysis.places import told
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.plan.balance import Balance
from anywire_experiment.report.design import places
from anywire_experiment.statistics import Estimate
from anywire_experiment.statistics.place import PlaceEffects

THREE: dict[str, Any] = {"factors": {"transport": ["zeromq", "dds", "http"]}}
TWO_FACTORS: dict[str, Any] = {"factors": {"transport": ["zeromq", "dds"], "agents": [1, 3]}}


def of_latency(results: Results, candidate: str = "dds") -> ComparisonFigures:
    return next(each for each in results.comparisons if (each.candidate, each.metric) == (candidate, "latency"))


def arm(results: Results, name: str) -> ArmFigures:
    return next(each for each in results.figures if each.arm == name)


@pytest.mark.parametrize("factors", [{}, THREE])
def test_a_first_arm_that_is_slower_is_found_and_taken_out(tmp_path: Path, factors: dict[str, Any]) -> None:
    plain, planted = (
        analyse(fabricate(tmp_path / name, plan_of(seed=3, blocks=18, **factors), drift=0.03, first=first))
        for name, first in (("plain", 1.0), ("planted", 1.1))
    )
    assert plain.design is not None
    assert plain.design.order.is_complete
    assert planted.design is not None
    found = next(each for each in planted.design.places if each.metric == "latency")
    assert found.removed
    assert found.effects is not None
    first = found.effects.effects[0]
    assert first.value == pytest.approx(1.1, rel=0.03)
    assert first.low > 1.0
    told = of_latency(planted)
    assert any("at place 1 latency is" in each and "taken out" in each for each in told.caution)
    bare = of_latency(plain)
    assert told.comparison is not None
    assert bare.comparison is not None
    assert told.comparison.ratio.value == pytest.approx(bare.comparison.ratio.value, rel=0.03)
    assert told.comparison.spread == pytest.approx(bare.comparison.spread, rel=0.25)


def test_the_place_is_taken_out_with_cells_missing_too(tmp_path: Path) -> None:
    record = fabricate(
        tmp_path / "r", plan_of(blocks=18, **THREE), {"http": Truth(broken=frozenset({2, 5}))}, drift=0.03, first=1.1
    )
    results = analyse(record)
    assert results.design is not None
    assert not results.design.order.is_complete
    found = results.design.places[0]
    assert found.removed
    assert found.effects is not None
    assert found.effects.values == 52


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_few_blocks_tell_no_effect_of_the_place_and_say_so(tmp_path: Path, blocks: int) -> None:
    results = analyse(fabricate(tmp_path / "r", plan_of(blocks=blocks), first=1.5))
    assert results.design is not None
    assert all(each.effects is None and each.reason for each in results.design.places)


def test_one_arm_has_no_design(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path / "r", plan_of(factors={})))
    assert (results.design, results.interactions) == (None, [])


def test_a_ratio_that_depends_on_the_other_factor_is_told(tmp_path: Path) -> None:
    plan = plan_of(seed=3, **TWO_FACTORS)
    alike = analyse(fabricate(tmp_path / "alike", plan, {"dds": Truth(factor=1.3)}))
    (same,) = (each for each in alike.interactions if each.metric == "latency")
    assert same.outcome == "same"
    assert "is the same at agents 3 as at agents 1 within 10 %" in same.sentence
    other = analyse(fabricate(tmp_path / "other", plan, {"dds+3": Truth(factor=1.5)}))
    (differs,) = (each for each in other.interactions if each.metric == "latency")
    assert differs.outcome == "differs"
    assert differs.comparison is not None
    assert differs.comparison.ratio.low < 1.5 < differs.comparison.ratio.high
    assert "no one figure holds for both" in differs.sentence
    assert differs.sentence in other.cautions


def test_interactions_of_three_factors_hold_the_third_fixed(tmp_path: Path) -> None:
    factors = {"transport": ["zeromq", "dds"], "agents": [1, 2, 3], "engine.seed": [1, 2]}
    results = analyse(fabricate(tmp_path / "r", plan_of(factors=factors, blocks=12, workloads={"w": {"requests": 30}})))
    latency = [each for each in results.interactions if each.metric == "latency"]
    assert len(latency) == 3 * 2 + 1 * 3
    assert {each.comparison.family for each in latency if each.comparison} == {len(latency)}


def test_a_load_that_was_sent_too_late_gives_no_verdict_on_latency(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path / "r", plan_of(), {"dds": Truth(late_ms=0.3)}))
    late, fine = arm(results, "dds").lateness, arm(results, "zeromq").lateness
    assert late is not None
    assert fine is not None
    assert late.p50_ms == pytest.approx(0.3)
    assert late.share == pytest.approx(0.3, rel=0.2)
    assert late.cores is not None
    assert fine.share is not None
    assert fine.share < 0.01
    told = of_latency(results)
    assert (told.comparison, told.verdict) == (None, None)
    assert "sent 0.3 ms too late to dds" in told.reason
    raised = analyse(fabricate(tmp_path / "raised", plan_of(max_lateness=0.5), {"dds": Truth(late_ms=0.3)}))
    assert of_latency(raised).verdict is not None


def test_a_start_that_is_slower_is_told(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path / "r", plan_of(), {"dds": Truth(start=1.2)}))
    found, steady = arm(results, "dds").steady, arm(results, "zeromq").steady
    assert found is not None
    assert steady is not None
    assert found.shown
    assert not steady.shown
    assert found.start is not None
    assert found.start.low < 1.2 < found.start.high
    (said,) = (each for each in results.cautions if "not steady" in each)
    assert "under one-client latency was not steady while it was measured: dds, a step in" in said
    assert "raise `warm_up.requests`" in said


def test_a_load_that_is_not_even_is_not_asked_to_be_steady(tmp_path: Path) -> None:
    workloads = {"w": {"requests": 300, "arrivals": {"kind": "bursts", "size": 10, "every": 1}}}
    results = analyse(fabricate(tmp_path / "r", plan_of(workloads=workloads), {"dds": Truth(start=2.0)}))
    assert all(each.steady is None for each in results.figures)


def test_what_ran_before_is_told_where_it_matters_by_all_metrics_together() -> None:
    effects = [Estimate(1.0, 0.9, 1.1, 0.95)] * 3
    made = [
        PlaceFigures("w", metric, PlaceEffects(36, effects, 0.5, p))
        for metric, p in (("latency", 0.001), ("ttft", 0.04), ("itl", 0.6), ("throughput", None))
    ]
    balance = Balance(3, 12, [4, 4], [4, 4], [4, 4])
    (said,) = told(DesignFigures(balance, balance.told(), [*made, PlaceFigures("w", "goodput", reason="a zero")]))
    assert "under w the latency of an arm depends on which arm ran directly before it (p = 0.003)" in said
    assert list(told(None)) == []


def test_many_places_have_few_columns(tmp_path: Path) -> None:
    factors = {"transport": ["zeromq", "dds"], "agents": [1, 2, 3]}
    results = analyse(fabricate(tmp_path / "r", plan_of(factors=factors, workloads={"w": {"requests": 30}}), first=1.3))
    table = places(results, "w")
    assert table.head == ["Metric", "Place 1", "Place 6", "Most apart", "p", "p of what ran before", "Effect"]
    (latency,) = table.rows
    assert latency[3].startswith("place 1: +")
    assert latency[-1] == "taken out"


def test_an_interaction_with_blocks_missing_or_a_late_load_is_not_judged(tmp_path: Path) -> None:
    plan = plan_of(seed=3, **TWO_FACTORS)
    missing = analyse(fabricate(tmp_path / "m", plan, {"dds+3": Truth(factor=1.5, broken=frozenset({4}))}))
    late = analyse(fabricate(tmp_path / "l", plan, {"dds+3": Truth(factor=1.5, late_ms=0.5)}))
    for results, said in ((missing, "1 of 16 blocks do not count for all four arms"), (late, "sent 0.5 ms too late")):
        (each,) = (each for each in results.interactions if each.metric == "latency")
        assert each.outcome == each.sentence == ""
        assert said in each.reason
