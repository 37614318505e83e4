"""Answers that were checked, from samples to the report: shares with intervals, pairs, cost, and the verdict."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of
from tests.experiment.test_analysis import arm, comparison, rewritten

from anywire_experiment import report
from anywire_experiment.analysis.analyse import analyse, differences
from anywire_experiment.analysis.results import Results
from anywire_experiment.report import side_by_side
from anywire_experiment.statistics import Outcome

ASKED: dict[str, Any] = {
    "factors": {"request": [{"alone": {}}, {"five": {"temperature": 0.5}}]},
    "baseline": "alone",
    "workloads": {"one-client": {"requests": 100, "exercises": {}}},
}
BETTER = {"alone": Truth(right=0.4), "five": Truth(right=0.65, tasks=25, shift_us=500)}


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fabricate(tmp_path_factory.mktemp("better"), plan_of(**ASKED), BETTER)
    report.write(folder)
    return folder


def test_more_right_answers_are_found_with_their_number_and_cost(better: Path) -> None:
    results = analyse(better)
    found = comparison(results, "quality")
    assert found.shares is not None
    assert found.shares.difference.low < 0.25 < found.shares.difference.high
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.BETTER
    assert found.sentence.startswith("five is right more often than alone by ")
    assert "percentage points (95 % interval " in found.sentence
    alone, five = (arm(results, name).quality for name in ("alone", "five"))
    assert alone is not None
    assert five is not None
    assert (alone.asked, five.asked) == (1600, 1600)
    assert alone.share.interval is not None
    assert alone.share.interval.low < 0.4 < alone.share.interval.high
    assert (alone.tasks, five.tasks, alone.tokens, five.tokens) == (1, 25, 10, 250)
    assert five.tokens_per_right == pytest.approx(250 * 1600 / five.right)
    assert five.seconds > alone.seconds > 0
    assert [(each.kind, each.asked) for each in five.kinds] == [("even", 800), ("odd", 800)]
    assert comparison(results, "spent_tokens").sentence.startswith("five is dearer than alone by a factor of 25")


def test_the_same_exercises_are_paired(better: Path) -> None:
    results = analyse(better)
    (found,) = results.paired_answers
    alone, five = (arm(results, name).quality for name in ("alone", "five"))
    assert alone is not None
    assert five is not None
    assert found.both + found.baseline_alone == alone.right
    assert found.both + found.candidate_alone == five.right
    assert found.both + found.baseline_alone + found.candidate_alone + found.neither == 1600
    # Half of the exercises are as hard for both arms, so one that fails there has mostly failed here.
    assert found.neither > 1600 * 0.6 * 0.35 * 1.2
    assert results.same_answers == []


def test_equal_arms_are_told_as_such(tmp_path: Path) -> None:
    tree = plan_of(**ASKED, share_margin=0.2)
    found = comparison(analyse(fabricate(tmp_path, tree)), "quality")
    assert found.verdict is not None
    assert found.verdict.words == "equivalent within 20 points"
    assert found.sentence.startswith("five and alone are equivalent within 20 percentage points: five is ")


def test_too_few_exercises_decide_nothing(tmp_path: Path) -> None:
    tree = plan_of(**ASKED | {"workloads": {"one-client": {"requests": 10, "exercises": {}}}})
    found = comparison(analyse(fabricate(tmp_path, tree)), "quality")
    assert found.sentence.startswith("not enough data to tell five from alone: five is ")
    assert "a new run of " in found.sentence


@pytest.mark.parametrize(("blocks", "said"), [(4, "an interval takes 6 blocks"), (8, "and a verdict takes 16")])
def test_few_blocks_give_no_verdict(tmp_path: Path, blocks: int, said: str) -> None:
    found = comparison(analyse(fabricate(tmp_path, plan_of(**ASKED, blocks=blocks), BETTER)), "quality")
    assert found.verdict is None or found.verdict.outcome is Outcome.NOT_ENOUGH_DATA
    assert said in found.sentence


def test_a_request_that_failed_is_not_right(tmp_path: Path) -> None:
    truths = {"alone": Truth(right=1.0), "five": Truth(right=1.0, failing=0.3)}
    results = analyse(fabricate(tmp_path, plan_of(**ASKED), truths))
    alone, five = (arm(results, name).quality for name in ("alone", "five"))
    assert alone is not None
    assert five is not None
    assert (alone.right, five.asked) == (1600, 1600)
    assert five.right == 1600 - arm(results, "five").failed < 1300
    found = comparison(results, "quality")
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.WORSE
    assert found.caution == []


def test_nothing_right_is_a_result_too(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(**ASKED), {"alone": Truth(right=0.0), "five": Truth(right=0.0)}))
    quality = arm(results, "five").quality
    assert quality is not None
    assert (quality.right, quality.tokens_per_right) == (0, None)
    found = comparison(results, "quality")
    assert found.shares is not None
    assert found.verdict is not None
    # A block in four may differ from top to bottom without any of sixteen having shown it.
    assert (found.shares.difference.value, found.verdict.outcome) == (0.0, Outcome.NOT_ENOUGH_DATA)
    assert found.verdict.blocks_needed == 80


def test_a_figure_follows_from_the_raw_data_alone(better: Path, tmp_path: Path) -> None:
    told = json.loads((better / "results.json").read_bytes())
    assert differences(told, analyse(better)) == []
    fabricate(tmp_path, plan_of(**ASKED), BETTER)
    rewritten(tmp_path / "cells/b001/five", right=[True] * 105)
    changed = differences(told, analyse(tmp_path))
    assert any("quality.right" in each for each in changed)
    assert any("shares.difference" in each for each in changed)


def test_the_report_says_it_in_every_form(better: Path) -> None:
    text = (better / "report.md").read_text()
    for title in ("### Quality and cost", "### Right by kind of exercise", "### Paired by exercise"):
        assert title in text
    assert "▲ right more often" in text
    assert "Shares have no ratio" in text
    assert "Exercises: made by seed (arithmetic, parity, words, logic)" in text
    assert "Quality against cost" in (better / "report.html").read_text()
    with (better / "results.csv").open() as file:
        (row,) = [each for each in csv.DictReader(file) if (each["kind"], each["metric"]) == ("comparison", "quality")]
    assert float(row["difference_low"]) < 0.25 < float(row["difference_high"])
    assert row["outcome"] == "better"
    assert "points" in side_by_side(better, better)


def test_records_without_exercises_say_nothing_of_them(tmp_path: Path) -> None:
    results: Results = analyse(fabricate(tmp_path, plan_of()))
    assert results.paired_answers == []
    assert arm(results, "dds").quality is None
    report.write(tmp_path)
    told = (tmp_path / "results.json").read_text()
    assert not [name for name in ("quality", "paired_answers", "share_margin", '"shares"') if name in told]
    assert "Shares have no ratio" not in (tmp_path / "report.md").read_text()


def test_what_is_typical_of_a_share_is_its_mean(better: Path) -> None:
    found = arm(analyse(better), "alone").metrics["quality"]
    assert len(found.values) == 16
    assert found.typical is not None
    assert found.typical.value == pytest.approx(sum(found.values.values()) / 16, abs=1e-12)
