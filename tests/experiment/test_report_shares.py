"""Shares of requests in a report: one figure and one interval wherever they are told, differences in points."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of

from anywire_experiment.analysis.analyse import analysed
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.analysis.wording import judged_shares
from anywire_experiment.report import sections
from anywire_experiment.statistics import compare_shares, share_verdict

TREE = plan_of(
    blocks=16,
    factors={"transport": ["zeromq", "dds", "http"]},
    objective={"latency": "2 ms"},
    workloads={"one-client": {"requests": 40}},
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    truths = {"dds": Truth(failing=0.1), "http": Truth(broken=frozenset({2}))}
    return analysed(RawData(fabricate(tmp_path_factory.mktemp("shares"), TREE, truths)))


def rows(results: Results, title: str) -> list[list[str]]:
    (table,) = [each for each in sections.of_workload(results, "one-client") if each.title.startswith(title)]
    return table.rows


def test_a_share_is_the_same_in_every_table(results: Results) -> None:
    typical = {(row[0], row[1]): row[2] for row in rows(results, "Figures")}
    for arm, *_, share, _code, _unsteady in rows(results, "Requests"):
        assert typical[arm, "share of failed requests"] == share
    for arm, _requests, _met, share, *_ in rows(results, "Objective"):
        assert typical[arm, "share that held the objective"] == share


def test_nothing_failed_is_no_certainty(results: Results) -> None:
    (figures,) = [each for each in results.figures if each.arm == "zeromq"]
    typical = figures.metrics["failures"].typical
    assert typical is not None
    assert typical.interval is not None
    assert typical.value == 0.0
    assert typical.interval.high == pytest.approx(0.206, abs=0.001)


def test_differences_of_shares_are_points(results: Results) -> None:
    told = {(row[0], row[1]): row[5] for row in rows(results, "Compared")}
    assert told["http", "share of failed requests"] == "0 points"
    assert told["dds", "share of failed requests"].endswith(" points")
    assert told["dds", "share that held the objective"].endswith(" points")


def test_what_failed_is_not_missing_of_a_share_that_counts_it(results: Results) -> None:
    told = {(row[0], row[1]): row[2:4] for row in rows(results, "What is missing")}
    assert told["http", "share that held the objective"] == ["–", "–"]
    assert told["dds", "latency"][0] == "0.0 %"


def test_one_block_is_told_as_one(results: Results) -> None:
    told = [caution for each in results.comparisons for caution in each.caution if "left out" in caution]
    assert told
    assert all(each.startswith("1 of 16 blocks is left out") for each in told)


def test_no_sign_stands_before_a_zero() -> None:
    shares = compare_shares([0.5] * 16, [0.5 + 0.0002 * (at % 3 - 1) for at in range(16)], margin=0.05)
    sentence = judged_shares("dds", "http", shares, share_verdict(shares), ("more", "less"))
    assert "+0.0" not in sentence
    assert "−0.0" not in sentence


def test_an_arm_that_answers_nothing_is_said_to_in_the_first_sentence(tmp_path: Path) -> None:
    tree = plan_of(blocks=16, workloads={"one-client": {"requests": 20}})
    results = analysed(RawData(fabricate(tmp_path / "silent", tree, {"dds": Truth(failing=1.0)})))
    assert results.headline.startswith("Nothing could be judged of dds beside zeromq, but dds has a share of failed ")
    assert results.headline.endswith("(under one-client).")


def test_arms_whose_cells_all_failed_are_arms(tmp_path: Path) -> None:
    tree = plan_of(blocks=2, workloads={"one-client": {"requests": 20}})
    results = analysed(RawData(fabricate(tmp_path / "failed", tree, {"dds": Truth(broken=frozenset({1, 2}))})))
    assert results.design is not None
    assert results.design.told == "fewer than two arms have a whole cell, so no order is told"
