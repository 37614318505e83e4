"""What the order of the blocks shows reaches the reader: drift as drift, dependence as dependence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.experiment.fabricated import fabricate, plan_of

from anywire_experiment import report
from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.family import family_size, too_large
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ComparisonFigures
from anywire_experiment.plan.plan import Plan
from anywire_experiment.statistics import Outcome
from anywire_experiment.statistics.simulated import autoregressive

LATENCY = {"metrics": ["latency"]}


def slowed(folder: Path, arm: str, factors: dict[int, float]) -> None:
    """Every latency of an arm, by block."""
    for block, factor in factors.items():
        path = folder / f"cells/b{block:03}/{arm}/samples.parquet"
        samples = pq.read_table(path)
        intended, done = (samples[name].to_numpy() for name in ("intended_ns", "done_ns"))
        later = pa.array((intended + factor * (done - intended)).astype(np.int64))
        pq.write_table(samples.set_column(samples.schema.get_field_index("done_ns"), "done_ns", later), path)


def found(folder: Path) -> ComparisonFigures:
    (only,) = analyse(folder).comparisons
    return only


def test_a_leak_is_told_as_drift_with_its_size(tmp_path: Path) -> None:
    """1 % slower with each block, and 7.8 % in the middle of the run."""
    fabricate(tmp_path, plan_of() | LATENCY)
    slowed(tmp_path, "dds", {block: 1.01**block for block in range(1, 17)})
    told = found(tmp_path)
    assert told.comparison is not None
    (said,) = [each for each in told.caution if each.startswith("it drifts")]
    per_block = re.search(r"dds gets slower than zeromq by (\d\.\d) % .* per block, as with a leak", said)
    assert per_block is not None
    assert 0.6 <= float(per_block[1]) <= 1.5
    assert "what is told holds for the middle of the run" in said
    assert told.comparison.ratio.low < 1.01**8.5 < told.comparison.ratio.high
    assert told.comparison.order.first < 1.05 < 1.12 < told.comparison.order.last
    assert told.verdict is not None
    assert told.verdict.outcome is not Outcome.EQUIVALENT
    report.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "### Order of the blocks" in text
    assert "But: it drifts" in text
    assert "ratios in the order of the run" in (tmp_path / "report.html").read_text()


def test_blocks_like_the_ones_before_are_told_with_what_they_are_worth(tmp_path: Path) -> None:
    fabricate(tmp_path, plan_of(blocks=40, workloads={"one-client": {"requests": 30}}) | LATENCY)
    logs = 0.2 * autoregressive(0.7)(np.random.default_rng(4), (40,))
    slowed(tmp_path, "dds", {block: float(np.exp(logs[block - 1])) for block in range(1, 41)})
    told = found(tmp_path)
    (said,) = [each for each in told.caution if each.startswith("blocks are like the ones before")]
    assert re.search(r"lag-1 correlation 0\.\d\d, 95 % interval .* 40 are worth some \d+, which", said)
    assert told.comparison is not None
    assert told.comparison.order.worth < 20
    assert list(told.ratios) == list(range(1, 41))


def test_an_ordinary_run_says_nothing_of_its_order(tmp_path: Path) -> None:
    fabricate(tmp_path, plan_of(workloads={"one-client": {"requests": 60}}) | LATENCY)
    assert found(tmp_path).caution == []


@pytest.mark.parametrize(
    ("members", "size"),
    [
        ({"factors": {}}, 0),
        ({}, 1),
        ({"factors": {"transport": ["a", "b", "c"], "agents": [1, 2]}}, 4),
        ({"metrics": ["latency", "wait", "failures"]}, 2),
        ({"workloads": {"one": {"requests": 10}, "two": {"requests": 10, "stream": True}}}, 5),
    ],
)
def test_the_family_is_counted(tmp_path: Path, members: dict[str, object], size: int) -> None:
    fabricate(tmp_path, plan_of(**members, blocks=1))
    assert family_size(RawData(tmp_path)) == size


def test_a_family_too_large_for_the_blocks_is_told() -> None:
    plan = Plan.model_validate(plan_of())
    (said,) = too_large(plan, 1800)
    assert said.startswith("the plan has 16 blocks for 1800 comparisons: fewer than 17 show no difference")
    assert list(too_large(plan, 1638)) == []
    assert list(too_large(plan.model_copy(update={"blocks": 17}), 1800)) == []
    assert list(too_large(plan.model_copy(update={"blocks": 4}), 1800)) == []
