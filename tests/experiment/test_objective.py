"""Goodput under a stated objective: which requests hold it, the share and the rate of them, and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydantic
import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of
from tests.experiment.test_analysis import arm, comparison, rewritten

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.plan.objective import Objective
from anywire_experiment.plan.plan import Plan
from anywire_experiment.report import page, writing
from anywire_experiment.statistics import Outcome

STREAMS = {"requests": 120, "stream": True}


@pytest.mark.parametrize(
    ("given", "milliseconds"), [("500 ms", 500.0), ("2 s", 2000.0), ("1.5s", 1500.0), ("250us", 0.25), ("250 µs", 0.25)]
)
def test_times_have_their_unit(given: str, milliseconds: float) -> None:
    made = Objective.model_validate({"latency": given})
    assert made.latency == pytest.approx(milliseconds)
    assert Objective.model_validate_json(made.model_dump_json(exclude_none=True)) == made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"latency": 500}, "a time has a unit: 500 ms or 500 s"),
        ({"latency": "fast"}, "a number with its unit, such as 500 ms or 2 s, not 'fast'"),
        ({"latency": "0 ms"}, "greater than 0"),
        ({}, "say what an answer must hold"),
        ({"latency": "1 s", "speed": "2 s"}, "speed"),
    ],
)
def test_what_is_no_objective_is_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        Objective.model_validate(given)


def test_attainment_needs_an_objective() -> None:
    with pytest.raises(pydantic.ValidationError, match="attainment is the share that holds the plan's `objective`"):
        Plan.model_validate(plan_of(metrics=["attainment"]))


def test_the_share_that_holds_the_objective_is_judged(tmp_path: Path) -> None:
    """Latencies have a median of 1 ms and a spread of 20 %, of dds one of 1.2 ms."""
    tree = plan_of(objective={"latency": "1.2 ms"}, share_margin=0.05)
    results = analyse(fabricate(tmp_path, tree, {"dds": Truth(factor=1.2)}))
    found = comparison(results, "attainment")
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.WORSE
    assert found.sentence.startswith("dds is in time less often than zeromq by ")
    assert found.shares is not None
    assert found.shares.candidate == pytest.approx(0.5, abs=0.08)
    figures = arm(results, "dds").objective
    assert figures is not None
    assert figures.missed == {"latency": figures.requests - figures.met}
    assert figures.interval is not None
    assert figures.interval.low < figures.share < figures.interval.high
    assert results.objective == "answer within 1.2 ms"


def test_a_request_that_failed_has_not_held_it_however_soon(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(objective={"latency": "1 s"}), {"dds": Truth(failing=0.2)}))
    figures = arm(results, "dds").objective
    assert figures is not None
    assert figures.missed == {"failed": figures.requests - figures.met}
    assert comparison(results, "failures").difference is not None
    found = comparison(results, "attainment")
    assert found.shares is not None
    assert found.shares.difference.value == pytest.approx(-0.2, abs=0.03)
    assert found.caution == []


def test_goodput_counts_what_holds_the_objective(tmp_path: Path) -> None:
    """One request each 10 ms, of which half are slower than the median."""
    tree = plan_of(objective={"latency": "1 ms"}, metrics=["goodput"])
    results = analyse(fabricate(tmp_path, tree, spread=0.0, drift=0.0))
    found = arm(results, "dds").metrics["goodput"].typical
    assert found is not None
    assert found.value == pytest.approx(50.0, abs=3.0)


def test_tokens_are_held_of_streams_alone(tmp_path: Path) -> None:
    objective = {"ttft": "0.3 ms", "itl": "0.1 ms"}
    tree = plan_of(objective=objective, workloads={"plain": {"requests": 60}, "streams": STREAMS})
    results = analyse(fabricate(tmp_path, tree))
    plain, streams = arm(results, "dds", "plain").objective, arm(results, "dds", "streams").objective
    assert plain is not None
    assert (plain.met, plain.missed) == (plain.requests, {})
    assert streams is not None
    assert set(streams.missed) == {"ttft", "itl"}
    assert 0.3 < streams.share < 0.6


def test_the_time_between_tokens_is_the_mean_of_a_stream(tmp_path: Path) -> None:
    """Eight tokens in 7 gaps of 1 ms, but for one stream with one of 8 ms."""
    tree = plan_of(blocks=1, objective={"itl": "1.5 ms"}, workloads={"one-client": STREAMS})
    folder = fabricate(tmp_path, tree)
    cell = folder / "cells/b001/dds"
    first = pq.read_table(cell / "samples.parquet")["first_ns"].to_numpy()
    pieces = first[:, None] + 1_000_000 * np.arange(8)
    pieces[-1, -1] += 7_000_000
    rewritten(cell, piece_ns=pieces.tolist())
    found = arm(analyse(folder), "dds").objective
    assert found is not None
    assert found.missed == {"itl": 1}


def test_requests_that_were_given_up_are_not_counted(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(objective={"latency": "1 s"}), {"dds": Truth(failing=0.3, code="cancelled")})
    found = arm(analyse(folder), "dds").objective
    assert found is not None
    assert found.requests == found.met < 16 * 300


def test_the_report_has_it(tmp_path: Path) -> None:
    tree = plan_of(objective={"latency": "1.2 ms"}, metrics=["attainment", "goodput"])
    folder = fabricate(tmp_path, tree, {"dds": Truth(failing=0.1)})
    record, results = RawData(folder), analyse(folder)
    for text in (page.html(record, results), writing.markdown(record, results)):
        assert "Objective" in text
        assert "answer within 1.2 ms. A request that failed has not held it" in text
        assert "answer late" in text
