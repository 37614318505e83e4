"""Deliberations as the load of an experiment: with members of a known accuracy what comes of it can be computed."""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.experiment.real_runs import done

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.outcome import faults
from anywire_experiment.record.folder import cell_folder
from anywire_service_deliberation.aggregation import ranked
from anywire_service_deliberation.question import Aggregation

pytestmark = pytest.mark.timeout(240)

PLAN = Path(__file__).parents[2] / "benchmarks/experiments/deliberation.yaml"
ACCURACY = 0.6


def majority(members: int, accuracy: float) -> float:
    """How often most of the members are right, each of them by itself in that share."""
    most = range(members // 2 + 1, members + 1)
    return sum(math.comb(members, right) * accuracy**right * (1 - accuracy) ** (members - right) for right in most)


@pytest.mark.parametrize("by", get_args(Aggregation))
@pytest.mark.parametrize("members", [3, 5])
def test_the_majority_wins_when_each_judges_by_its_own_answer(by: Aggregation, members: int) -> None:
    """Of all combinations of who is right, each with its chance: the winner is right as often as the formula says."""
    names = tuple(f"member-{at}" for at in range(members))
    chance = 0.0
    for right in itertools.product([True, False], repeat=members):
        says = dict(zip(names, right, strict=True))
        scores = {
            judge: {name: 5.0 if says[name] is says[judge] else 1.0 for name in names if name != judge}
            for judge in names
        }
        winner = ranked(scores, names, by, middle=3.0)[0].member
        if says[winner]:
            chance += math.prod(ACCURACY if each else 1 - ACCURACY for each in right)
    assert chance == pytest.approx(majority(members, ACCURACY))


def test_the_formula() -> None:
    assert majority(1, 0.6) == pytest.approx(0.6)
    assert majority(5, 0.6) == pytest.approx(0.68256)


@pytest.fixture(scope="module")
def engine() -> ModuleType:
    """The module of the plan's engine."""
    path = PLAN.parent / "plugins/known_accuracy.py"
    spec = importlib.util.spec_from_file_location("known_accuracy_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def test_the_engine_is_right_as_often_as_it_is_told(engine: ModuleType) -> None:
    drawn = [engine.is_right(number, seed, ACCURACY) for number in range(4000) for seed in (1, 2)]
    assert sum(drawn) / len(drawn) == pytest.approx(ACCURACY, abs=0.025)
    pairs = [engine.is_right(number, 1, ACCURACY) and engine.is_right(number, 2, ACCURACY) for number in range(4000)]
    assert sum(pairs) / len(pairs) == pytest.approx(ACCURACY**2, abs=0.04)


ALONE = "{alone: {model: known-accuracy, seed: 1}}"
FIVE = "{five: {model: deliberate, deliberation: {members: 5, rounds: 0, aggregation: approval}}}"


async def test_a_plan_of_deliberations_comes_out_as_computed(tmp_path: Path, engine: ModuleType) -> None:
    """Every answer is the one that the majority of the members gives, paired with that of the first of them alone."""
    record = tmp_path / "record"
    changes = ["blocks=1", f"factors.request=[{ALONE}, {FIVE}]", "workloads.parity.requests=40"]
    status, said = await done("run", PLAN, "--out", record, *itertools.chain(*(("--set", each) for each in changes)))
    assert status == 0, said
    assert faults(record) == []

    asked: dict[str, list[Any]] = {}
    for arm, members in (("alone", 1), ("five", 5)):
        table = pq.read_table(cell_folder(record, 1, arm) / "samples.parquet")
        rows = table.filter(pc.equal(table["phase"], "measured")).to_pylist()
        assert len(rows) == 40
        asked[arm] = [(row["index"], row["exercise"]) for row in rows]
        for row in rows:
            number = int(row["exercise"].removeprefix("parity-"))
            right = [engine.is_right(number, seed, ACCURACY) for seed in range(1, members + 1)]
            assert (row["outcome"], row["transport"]) == ("ok", "memory")
            assert row["right"] is (sum(right) > members / 2), (number, right, row["said"])
            if members == 1:
                assert row["tasks"] == 1
            else:
                # The scoring ends once the lead cannot be lost.
                assert 5 < row["tasks"] <= 25
            assert row["spent_tokens"] > row["tokens"] > 0
    assert asked["alone"] == asked["five"]

    results = analyse(record)
    quality = {each.arm: each.quality for each in results.figures}
    assert quality["five"] is not None
    assert quality["alone"] is not None
    assert quality["five"].tokens > 5 * quality["alone"].tokens
    (paired,) = results.paired_answers
    assert paired.both + paired.candidate_alone == quality["five"].right
    assert str(tmp_path) not in (record / "report.md").read_text()
