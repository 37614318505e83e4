"""The plans that are shipped: each can be run, and one that says it streams does."""

from __future__ import annotations

from pathlib import Path

import pytest

from anywire.builtin.synthetic import SyntheticEngine
from anywire_experiment.plan.arms import arms_of, config_of
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.run.expectations import expectations
from anywire_experiment.statistics import FEWEST_BLOCKS

PLANS = sorted((Path(__file__).parents[2] / "benchmarks/experiments").glob("*.yaml"))
FASTEST = 200
"""Tokens per second of one stream, above which no engine that people run answers."""


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_that_streams_has_tokens_at_a_pace_or_is_called_a_burst(path: Path) -> None:
    plan = load_plan(path)
    streams = [name for name, each in plan.workloads.items() if each.stream and "burst" not in name]
    for arm in arms_of(plan) if streams else []:
        if arm.foreign is not None:
            continue
        engine = config_of(arm).engine
        if engine.name == SyntheticEngine.name and "burst" not in arm.name:
            pace = SyntheticEngine.Config.model_validate(engine.options).itl.mean
            assert pace >= 1000 / FASTEST, f"{arm.name} gives {streams[0]} more than {FASTEST} tokens per second"


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_promises_nothing_that_it_cannot_show(path: Path) -> None:
    plan = load_plan(path)
    assert plan.blocks >= FEWEST_BLOCKS
    told = expectations(plan, arms_of(plan))
    bursts = [arm.name for arm in arms_of(plan) if "burst" in arm.name]
    assert [each for each in told if not all(name in each for name in bursts)] == [] if bursts else told == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["blocks=4"], ["4 blocks: fewer than 6 are too few for an interval, and fewer than 16 for a verdict"]),
        (["blocks=1"], ["1 block: fewer than 6 are too few for an interval"]),
        (["blocks=15"], ["15 blocks: fewer than 16 are too few for a verdict"]),
        (["system.engine.itl=0"], ["gives all tokens of an answer at once, so the streams of b2-streams are bursts"]),
        (["workloads.b0-simple.requests=9"], ["workload 'b0-simple' has 9 requests"]),
    ],
)
def test_what_a_plan_cannot_show_is_told(changes: list[str], said: list[str]) -> None:
    plan = load_plan(next(each for each in PLANS if each.stem == "quick"), changes)
    told = expectations(plan, arms_of(plan))
    assert len(told) == len(said)
    assert all(part in sentence for part, sentence in zip(said, told, strict=True)), told
