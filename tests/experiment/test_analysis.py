"""From records whose truth is known to figures: what counts, what does not, and whether the truth is found."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.experiment.fabricated import Truth, fabricate, plan_of
from tests.long_form import examples

from anywire.errors import AnywireError
from anywire_experiment.analysis.analyse import analyse, differences
from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.record.cells import read_cell, write_cell
from anywire_experiment.report.tables import counters, failures
from anywire_experiment.statistics import Outcome

KILL = {"seconds": 4, "arrivals": {"kind": "poisson", "rate": 100}, "fault": {"kind": "kill", "at": 1, "lasts": 2}}
STREAMS = {"requests": 120, "stream": True}
LATENCY = {"metrics": ["latency"]}


def comparison(results: Results, metric: str = "latency", **also: str) -> ComparisonFigures:
    wanted = {"metric": metric} | also
    (found,) = [each for each in results.comparisons if all(getattr(each, key) == wanted[key] for key in wanted)]
    return found


def arm(results: Results, name: str, workload: str = "one-client") -> ArmFigures:
    (found,) = [each for each in results.figures if (each.arm, each.workload) == (name, workload)]
    return found


def rewritten(cell: Path, **columns: object) -> None:
    """The cell's samples with other columns."""
    table = pq.read_table(cell / "samples.parquet")
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(name), pa.array(values, type=table.schema.field(name).type))
    pq.write_table(table, cell / "samples.parquet")


# The truth is found


def test_a_shift_is_found_with_its_size(tmp_path: Path) -> None:
    """Latencies have a median of 1 ms; dds has 100 µs more."""
    results = analyse(fabricate(tmp_path, plan_of(margin=0.05), {"dds": Truth(shift_us=100)}))
    found = comparison(results)
    assert found.verdict is not None
    assert found.comparison is not None
    assert found.verdict.outcome is Outcome.WORSE
    assert found.comparison.ratio.low < 1.1 < found.comparison.ratio.high
    assert found.comparison.difference.low < 0.1 < found.comparison.difference.high
    assert found.comparison.difference.value == pytest.approx(0.1, abs=0.03)
    assert results.headline.startswith("dds is slower than zeromq by ")
    assert results.headline.endswith(" in latency under one-client.")


def test_the_faster_arm_is_told_as_faster(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(baseline="dds"), {"dds": Truth(shift_us=400)}))
    found = comparison(results)
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.BETTER
    assert found.sentence.startswith("zeromq is faster than dds by ")


def test_equal_arms_are_equivalent(tmp_path: Path) -> None:
    found = comparison(analyse(fabricate(tmp_path, plan_of())))
    assert found.verdict is not None
    assert found.verdict.words == "equivalent within 10 %"
    assert found.sentence.startswith("dds and zeromq are equivalent within 10 %: dds is ")


def test_eight_blocks_are_not_enough_whatever_they_show(tmp_path: Path) -> None:
    found = comparison(analyse(fabricate(tmp_path, plan_of(blocks=8), {"dds": Truth(shift_us=900)})))
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.NOT_ENOUGH_DATA
    assert found.comparison is not None
    assert found.comparison.ratio.value == pytest.approx(1.9, abs=0.1)
    assert "in 8 blocks, and a verdict takes 16" in found.sentence


def test_many_times_as_slow_is_told_as_a_factor(tmp_path: Path) -> None:
    found = comparison(analyse(fabricate(tmp_path, plan_of(), {"dds": Truth(factor=50.0)})))
    assert "slower than zeromq by a factor of " in found.sentence


# What counts


def test_warm_up_is_in_no_figure(tmp_path: Path) -> None:
    """It was made fifty times as slow."""
    results = analyse(fabricate(tmp_path, plan_of()))
    figures = arm(results, "dds")
    assert figures.requests == 16 * 300
    percentiles = figures.metrics["latency"].percentiles
    assert percentiles is not None
    assert percentiles.p99 is not None
    assert percentiles.p99.interval is not None
    assert percentiles.p99.interval.high < 3


def test_failed_requests_are_beside_the_figures_and_not_in_them(tmp_path: Path) -> None:
    """They took 30 s each."""
    results = analyse(fabricate(tmp_path, plan_of(), {"dds": Truth(failing=0.05)}))
    figures, found = arm(results, "dds"), comparison(results)
    assert figures.failed == figures.failures["timeout"] > 100
    assert figures.failed_share is not None
    assert figures.failed_share.interval is not None
    assert figures.failed_share.interval.low < figures.failed / figures.requests < figures.failed_share.interval.high
    assert figures.metrics["latency"].samples == figures.requests - figures.failed
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.EQUIVALENT
    said = f"{figures.failed} of 4800 requests of dds failed, and count as slower than every answer"
    assert found.caution[0] == said
    assert found.caution[1].startswith("whatever the failed requests would have shown, the estimate lies between ")
    shares = comparison(results, "failures")
    assert shares.verdict is None
    assert shares.difference is not None
    assert shares.difference.value == pytest.approx(figures.failed / figures.requests)
    assert shares.sentence.startswith("dds has a share of failed requests ")


def test_an_answer_over_another_transport_is_a_failure_and_said_so(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(), {"dds": Truth(failing=0.05, code="wrong_transport")}))
    assert any("came over another transport" in each for each in comparison(results).caution)


def test_a_failed_cell_is_in_no_figure_and_told(tmp_path: Path) -> None:
    truths = {"dds": Truth(broken=frozenset({2, 7}))}
    results = analyse(fabricate(tmp_path, plan_of(blocks=14), truths))
    found = comparison(results)
    assert arm(results, "dds").blocks == 12
    assert arm(results, "zeromq").blocks == 14
    assert found.excluded == {2: "the cell of dds failed", 7: "the cell of dds failed"}
    assert found.comparison is not None
    assert found.comparison.blocks == 12
    assert "2 of 14 blocks are left out (block 2: the cell of dds failed)" in found.caution
    assert "2 of 28 cells failed and are in no figure; the table of cells says why" in results.cautions
    assert [each.reason for each in results.cells if each.state == "failed"] == [Truth().reason] * 2


def test_blocks_are_paired_by_number(tmp_path: Path) -> None:
    """Blocks differ by a factor of e, the arms in each by 10 %: only in pairs does that show."""
    truths = {"dds": Truth(factor=1.10, broken=frozenset({1})), "zeromq": Truth(broken=frozenset({4}))}
    found = comparison(analyse(fabricate(tmp_path, plan_of(blocks=15), truths, spread=1.0)))
    assert found.comparison is not None
    assert found.comparison.blocks == 13
    assert found.comparison.ratio.value == pytest.approx(1.1, abs=0.02)
    assert found.comparison.spread < 0.05


def test_a_block_with_too_few_answers_does_not_count(tmp_path: Path) -> None:
    found = comparison(analyse(fabricate(tmp_path, plan_of(blocks=14), {"dds": Truth(thin=frozenset({3}))})))
    assert found.excluded == {3: "dds has 4 whole answers with a latency"}


def test_a_p99_takes_a_hundred_answers_in_a_block(tmp_path: Path) -> None:
    tree = plan_of(statistic="p99", workloads={"few": {"requests": 60}, "enough": {"requests": 150}})
    results = analyse(fabricate(tmp_path, tree))
    assert comparison(results, workload="few").comparison is None
    assert comparison(results, workload="enough").comparison is not None


def test_percentiles_only_where_each_block_has_samples_for_them(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(workloads={"one-client": {"requests": 60}})))
    percentiles = arm(results, "dds").metrics["latency"].percentiles
    assert percentiles is not None
    assert percentiles.p95 is not None
    assert percentiles.p99 is None


# Borders


def test_one_arm_is_measured_and_not_compared(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(factors={}, blocks=3)))
    assert results.arms == ["system"]
    assert results.comparisons == []
    assert results.headline == "One arm was measured (system), so nothing is compared."
    assert arm(results, "system").metrics["latency"].typical is not None


def test_one_block_has_values_and_no_intervals(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(blocks=1)))
    figures = arm(results, "dds").metrics["latency"]
    assert list(figures.values) == [1]
    assert figures.typical is not None
    assert figures.typical.value == pytest.approx(figures.values[1])
    assert figures.typical.interval is None
    assert (
        comparison(results).sentence
        == "dds and zeromq: a comparison needs 2 blocks or more, and 1 of 1 count for both arms"
    )
    assert results.headline == (
        "Nothing could be judged of dds beside zeromq: a comparison needs 2 blocks or more, and 1 of 1 count for "
        "both arms."
    )


def test_no_whole_answer_at_all(tmp_path: Path) -> None:
    results = analyse(fabricate(tmp_path, plan_of(workloads={"one-client": STREAMS}), {"dds": Truth(failing=1.0)}))
    figures = arm(results, "dds")
    assert figures.failed == figures.requests == 16 * 120
    assert figures.metrics["latency"].values == {}
    assert figures.stages_us == {}
    assert comparison(results).comparison is None
    assert "dds has 0 whole answers" in comparison(results).excluded[1]


def test_an_unfinished_record_says_so(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(), without=lambda block, arm: block > 14 and arm == "dds")
    results = analyse(folder)
    assert "2 of 32 cells have not run: this record is not finished" in results.cautions
    assert comparison(results).excluded == {15: "dds did not run", 16: "dds did not run"}


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnywireError, match="no record of an experiment"):
        analyse(tmp_path)
    folder = fabricate(tmp_path / "empty", plan_of(), without=lambda block, arm: True)
    with pytest.raises(AnywireError, match="no cells yet"):
        analyse(folder)
    folder = fabricate(tmp_path / "torn", plan_of(blocks=2))
    (folder / "cells/b001/dds/samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(AnywireError, match="b001/dds cannot be read"):
        analyse(folder)


def test_arms_are_compared_within_the_levels_of_other_factors(tmp_path: Path) -> None:
    """With 4 agents dds is slower, with 1 it is not."""
    factors = {"transport": ["zeromq", "dds"], "agents": [1, 4]}
    folder = fabricate(tmp_path, plan_of(factors=factors, margin=0.2) | LATENCY)
    for block in range(1, 17):
        cell = folder / f"cells/b{block:03}/dds+4"
        table = pq.read_table(cell / "samples.parquet")
        rewritten(cell, done_ns=pc.add(table["done_ns"], 1_000_000).to_pylist())
    results = analyse(folder)
    assert len(results.comparisons) == 2
    one, four = (comparison(results, candidate=name) for name in ("dds+1", "dds+4"))
    assert (one.baseline, four.baseline) == ("zeromq+1", "zeromq+4")
    assert (one.levels, four.levels) == ({"agents": "1"}, {"agents": "4"})
    assert one.verdict is not None
    assert four.verdict is not None
    assert (one.verdict.outcome, four.verdict.outcome) == (Outcome.EQUIVALENT, Outcome.WORSE)
    assert results.headline.startswith("dds is slower than zeromq by ")
    assert " in latency under one-client, agents 4; dds is equivalent to zeromq within 20 % in " in results.headline


def test_all_comparisons_of_a_plan_are_one_family(tmp_path: Path) -> None:
    tree = plan_of(factors={"transport": ["zeromq", "dds", "http"]}, workloads={"a": STREAMS, "b": {"requests": 120}})
    results = analyse(fabricate(tmp_path, tree))
    judged = [each.comparison for each in results.comparisons if each.comparison is not None]
    assert len(judged) == 2 * (4 + 1)  # of streams also time to first token, per token, and tokens per second
    assert {each.family for each in judged} == {10}
    assert all(each.adjusted_different >= each.p_different for each in judged)


# Faults


def test_a_fault_is_told_by_its_notice_and_recovery(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(workloads={"kill": KILL}), {"dds": Truth(notice_ms=600)})
    results = analyse(folder)
    fault = arm(results, "dds", "kill").fault
    assert fault is not None
    assert (fault.kind, fault.blocks) == ("kill", 16)
    assert fault.notice_ms == dict.fromkeys(range(1, 17), 600.0)
    assert fault.noticed_by == {"agent_lost": 16}
    assert all(600 < each < 620 for each in fault.recovery_ms.values())
    found = comparison(results, "notice")
    assert found.sentence.startswith("dds is 2 times zeromq") or found.sentence.startswith("dds is later than zeromq")


def test_counters_of_the_orchestrator_are_summed_over_the_blocks_that_count(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(), {"zeromq": Truth(broken=frozenset({3}))})
    for place in folder.glob("cells/*/dds"):
        cell = read_cell(place)
        cell.workloads["one-client"].counters = {"retries": 2, "hedges_wasted_s": 0.25}
        write_cell(place, cell)
    for place in folder.glob("cells/*/zeromq"):
        cell = read_cell(place)
        cell.workloads["one-client"].counters = {"hedges": 1}
        write_cell(place, cell)
    results = analyse(folder)
    assert arm(results, "dds").counters == {"hedges_wasted_s": 4.0, "retries": 32}
    assert arm(results, "zeromq").counters == {"hedges": 15}
    table = counters(results.figures)
    assert table.rows == [["hedges", "15", "0"], ["hedges_wasted_s", "0", "4"], ["retries", "0", "32"]]


def test_a_workload_is_judged_by_those_metrics_of_the_plan_that_it_can_have(tmp_path: Path) -> None:
    workloads = {"plain": {"requests": 120}, "streams": STREAMS, "kill": KILL}
    tree = plan_of(workloads=workloads, metrics=["ttft", "latency", "notice"])
    results = analyse(fabricate(tmp_path, tree, {}))
    judged = {name: {each.metric for each in results.comparisons if each.workload == name} for name in workloads}
    assert judged == {"plain": {"latency"}, "streams": {"ttft", "latency"}, "kill": {"latency", "notice"}}


def test_an_agent_never_lost_is_no_notice_of_zero(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(workloads={"kill": KILL}), {"dds": Truth(notice_ms=None)})
    results = analyse(folder)
    fault = arm(results, "dds", "kill").fault
    assert fault is not None
    assert fault.notice_ms == {}
    assert fault.recovery_ms == dict.fromkeys(range(1, 17), 0.0)
    notice, recovery = comparison(results, "notice"), comparison(results, "recovery")
    assert notice.excluded[1] == "dds never lost the agent"
    assert notice.comparison is None
    # Zero has no ratio; the difference says how much sooner.
    assert recovery.comparison is None
    assert recovery.difference is not None
    assert recovery.difference.high < -300
    assert recovery.reason == "a block's value is 0, so there is no ratio"
    assert "below zeromq's" in recovery.sentence


def test_too_few_answers_before_a_fault_are_told_where_recovery_is_missing(tmp_path: Path) -> None:
    tree = plan_of(workloads={"kill": KILL}, metrics=["recovery"])
    folder = fabricate(tmp_path, tree, {"dds": Truth(thin=frozenset({3}))})
    found = comparison(analyse(folder), "recovery")
    assert found.excluded == {3: "dds gave fewer than 5 answers before the fault"}


def test_streams_cut_by_a_fault_are_counted(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(blocks=2, workloads={"kill": KILL | {"stream": True}}))
    cell = folder / "cells/b001/dds"
    outcomes = pq.read_table(cell / "samples.parquet")["outcome"].to_pylist()
    outcomes[-1] = outcomes[-2] = "agent_lost"
    outcomes[10] = "agent_lost"  # before the fault
    rewritten(cell, outcome=outcomes)
    fault = arm(analyse(folder), "dds", "kill").fault
    assert fault is not None
    assert (fault.failed, fault.streams_lost, fault.retried) == (2, 2, 0)


def test_who_failed_is_counted_where_it_was_told(tmp_path: Path) -> None:
    truth = Truth(failing=0.2, code="engine_failed", origin="engine")
    folder = fabricate(tmp_path, plan_of(blocks=2), {"dds": truth})
    figures = arm(analyse(folder), "dds")
    assert figures.origins == {"engine": figures.failed}
    assert figures.failed > 0
    (row,) = [row for row in failures([figures]).rows if row[0] == "dds"]
    assert row[4] == f"engine_failed {figures.failed} (who failed: engine {figures.failed})"
    assert arm(analyse(folder), "zeromq").origins == {}


# Too few blocks


def test_four_blocks_have_values_and_no_interval_anywhere(tmp_path: Path) -> None:
    """Of one block that was a thousand times as slow, in each arm another."""
    folder = fabricate(tmp_path, plan_of(blocks=4, workloads={"one-client": STREAMS}))
    for block, name in ((2, "dds"), (3, "zeromq")):
        cell = folder / f"cells/b{block:03}/{name}"
        table = pq.read_table(cell / "samples.parquet")
        slow = pc.add(table["intended_ns"], pc.multiply(pc.subtract(table["done_ns"], table["intended_ns"]), 1000))
        rewritten(cell, done_ns=slow.to_pylist())
    results = analyse(folder)
    figures = arm(results, "dds")
    latency = figures.metrics["latency"]
    assert latency.typical is not None
    assert latency.percentiles is not None
    assert latency.percentiles.p50 is not None
    assert (latency.typical.interval, latency.percentiles.p50.interval) == (None, None)
    assert figures.failed_share is not None
    assert (figures.failed_share.value, figures.failed_share.interval) == (0.0, None)
    found = comparison(results)
    assert (found.comparison, found.verdict) == (None, None)
    assert found.reason == "an interval of 95 % cannot be estimated with 4 blocks"
    assert "cannot be estimated with 4 blocks, and a verdict takes 16; dds " in found.sentence
    assert "the plan has 4 blocks: fewer than 16 give no verdict, and fewer than 6 no interval" in results.cautions


def test_wild_blocks_move_neither_the_value_nor_the_limits_far(tmp_path: Path) -> None:
    """Sixteen blocks, of which two were a thousand and a million times as slow."""
    folder = fabricate(tmp_path, plan_of() | LATENCY)
    for block, factor in ((2, 1000), (9, 1_000_000)):
        cell = folder / f"cells/b{block:03}/dds"
        table = pq.read_table(cell / "samples.parquet")
        slow = pc.add(table["intended_ns"], pc.multiply(pc.subtract(table["done_ns"], table["intended_ns"]), factor))
        rewritten(cell, done_ns=slow.to_pylist())
    results = analyse(folder)
    typical = arm(results, "dds").metrics["latency"].typical
    assert typical is not None
    assert typical.interval is not None
    assert typical.interval.high < 1.5
    found = comparison(results).comparison
    assert found is not None
    assert 0.9 < found.ratio.low < found.ratio.high < 1.1
    assert max(comparison(results).ratios.values()) > 100_000


def test_a_comparison_that_is_not_told_has_its_place_in_the_family(tmp_path: Path) -> None:
    """Of two, one has five blocks that count for both arms."""
    tree = plan_of(factors={"transport": ["zeromq", "dds", "http"]}) | LATENCY
    results = analyse(fabricate(tmp_path, tree, {"http": Truth(broken=frozenset(range(1, 12)))}))
    assert comparison(results, candidate="http").comparison is None
    told = comparison(results, candidate="dds").comparison
    assert told is not None
    assert told.family == 2


# One typical value


def test_there_is_one_typical_latency(tmp_path: Path) -> None:
    """Blocks apart by a factor of two and more, whose means and medians are not the same."""
    results = analyse(fabricate(tmp_path, plan_of(), {"dds": Truth(factor=1.5)}, spread=0.8))
    compared = comparison(results).comparison
    assert compared is not None
    for name, value in (("dds", compared.candidate), ("zeromq", compared.baseline)):
        latency = arm(results, name).metrics["latency"]
        assert latency.typical is not None
        assert latency.percentiles is not None
        assert latency.percentiles.p50 == latency.typical
        assert latency.typical.value == pytest.approx(value)
        assert latency.typical.value == pytest.approx(float(np.median(list(latency.values.values()))))


def test_the_headline_names_the_arms(tmp_path: Path) -> None:
    tree = plan_of(factors={"transport": ["zeromq", "dds", "http"]}) | LATENCY
    results = analyse(fabricate(tmp_path, tree, {"http": Truth(factor=3.0)}))
    assert results.headline.startswith("http is slower than zeromq by a factor of 3")
    assert results.headline.endswith("; dds is equivalent to zeromq within 10 % in latency under one-client.")


# Bursts


def burst(folder: Path, blocks: range, name: str, moments: int) -> None:
    """All pieces of that arm at ``moments`` moments, at the end of the latency."""
    for block in blocks:
        cell = folder / f"cells/b{block:03}/{name}"
        pieces = pq.read_table(cell / "samples.parquet")["piece_ns"].to_pylist()
        at = [
            [each[-1] - 300_000 * (moments - 1 - piece * moments // len(each)) for piece in range(len(each))]
            for each in pieces
            if each
        ]
        rewritten(cell, piece_ns=at)


@pytest.mark.parametrize("moments", [1, 2])
def test_the_pace_of_a_burst_is_no_figure_and_the_report_says_why(tmp_path: Path, moments: int) -> None:
    folder = fabricate(tmp_path, plan_of(workloads={"one-client": STREAMS}))
    burst(folder, range(1, 17), "dds", moments)
    results = analyse(folder)
    figures = arm(results, "dds")
    assert figures.stream is not None
    assert (figures.stream.burst, figures.stream.tokens, figures.stream.moments) == (True, 8, moments)
    plural = "" if moments == 1 else "s"
    for metric, none in (("itl", "time between tokens"), ("tokens_per_s", "rate of tokens")):
        assert figures.metrics[metric].typical is None
        assert arm(results, "zeromq").metrics[metric].typical is not None
        found = comparison(results, metric)
        assert (found.comparison, found.verdict, found.excluded) == (None, None, {})
        assert found.reason == (
            f"the 8 tokens of an answer came at {moments} moment{plural} over dds: a burst has no {none}"
        )
    assert comparison(results, "latency").comparison is not None
    assert any(
        each.startswith("the answers of one-client came as bursts over dds (8 tokens") for each in results.cautions
    )


def test_streams_that_stream_are_no_bursts_whatever_a_few_of_them_do(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(workloads={"one-client": STREAMS}))
    burst(folder, range(1, 4), "dds", 1)
    results = analyse(folder)
    shape = arm(results, "dds").stream
    assert shape is not None
    assert (shape.burst, shape.moments) == (False, 8)
    assert comparison(results, "itl").difference is not None
    assert not any("bursts" in each for each in results.cautions)


# Other figures


def test_time_per_token_does_not_depend_on_how_many_come_in_a_piece(tmp_path: Path) -> None:
    """One arm sends 8 tokens in 8 pieces, the other the same in 2."""
    folder = fabricate(tmp_path, plan_of(workloads={"one-client": STREAMS}))
    for block in range(1, 17):
        cell = folder / f"cells/b{block:03}/dds"
        pieces = pq.read_table(cell / "samples.parquet")["piece_ns"].to_pylist()
        rewritten(cell, piece_ns=[[each[0], each[-1]] for each in pieces])
    found = comparison(analyse(folder), "itl")
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.EQUIVALENT


def test_a_rate_does_not_wait_for_a_request_that_times_out(tmp_path: Path) -> None:
    tree = plan_of(workloads={"one-client": {"requests": 300, "arrivals": {"kind": "closed", "clients": 8}}})
    results = analyse(fabricate(tmp_path, tree, {"dds": Truth(failing=0.02)}))
    assert arm(results, "dds").metrics["throughput"].typical is not None
    found = comparison(results, "throughput")
    assert found.comparison is not None
    assert found.comparison.ratio.value == pytest.approx(0.98, abs=0.01)


def test_stages_between_clocks_that_do_not_compare_are_left_out(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(blocks=1))
    cell = folder / "cells/b001/dds"
    rewritten(cell, stages_comparable=[False] * pq.read_table(cell / "samples.parquet").num_rows)
    results = analyse(folder)
    assert arm(results, "zeromq").stages_us.keys() - arm(results, "dds").stages_us.keys() == {
        "wire and wake-up of the agent",
        "way back",
    }


def test_the_same_answers_are_counted_request_by_request(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(blocks=2))
    cell = folder / "cells/b002/dds"
    hashes = pq.read_table(cell / "samples.parquet")["text_hash"].to_pylist()
    rewritten(cell, text_hash=[*hashes[:-3], "x", "y", "z"])
    (same,) = analyse(folder).same_answers
    assert (same.compared, same.equal) == (600, 597)


def test_a_busy_machine_shared_cores_and_interruptions_are_cautions(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(blocks=1))
    told = json.loads((folder / "environment.json").read_bytes())
    told["sessions"][0]["environment"]["load_average"] = [9.5, 1.0, 1.0]
    told["sessions"][0]["environment"]["usable_cores"] = [0, 1]
    told["sessions"].append(told["sessions"][0] | {"differs": ["kernel: 1 → 2"]})
    (folder / "environment.json").write_text(json.dumps(told))
    cell = folder / "cells/b001/dds/cell.json"
    state = json.loads(cell.read_bytes())
    state["cpus"] = {"load": [0, 1], "system": [1]}
    state["workloads"]["one-client"]["steady"] = False
    cell.write_text(json.dumps(state))
    assert analyse(folder).cautions == [
        "in 1 of 2 cells a warm-up ended before the latency was steady",
        "the load generator and the system shared cores, so each took time from the other",
        "the machine was busy: load average 9.5 on 2 cores before the run began",
        "the run was interrupted: it took 2 sessions",
        "session 2 was not as the first: kernel: 1 → 2",
        "the plan has 1 block: fewer than 16 give no verdict, and fewer than 6 no interval",
    ]


# Laws


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("small"), plan_of(blocks=6, workloads={"one-client": {"requests": 40}}))


@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_the_order_of_the_rows_makes_no_difference(small: Path, seed: int) -> None:
    cell = small / "cells/b002/dds/samples.parquet"
    table, before = pq.read_table(cell), analyse(small)
    try:
        order = list(range(table.num_rows))
        random.Random(seed).shuffle(order)
        pq.write_table(table.take(order), cell)
        assert analyse(small) == before
    finally:
        pq.write_table(table, cell)


@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(factor=st.floats(1.01, 20.0))
def test_a_slower_clock_changes_no_ratio(small: Path, factor: float) -> None:
    """Both arms' latencies times a factor: the ratio is as it was, the difference times the factor."""
    before = comparison(analyse(small)).comparison
    assert before is not None
    kept = {path: pq.read_table(path) for path in small.glob("cells/*/*/samples.parquet")}
    try:
        for path, table in kept.items():
            took = (table["done_ns"].to_numpy() - table["intended_ns"].to_numpy()) * factor
            rewritten(path.parent, done_ns=(table["intended_ns"].to_numpy() + np.rint(took).astype(np.int64)).tolist())
        after = comparison(analyse(small)).comparison
    finally:
        for path, table in kept.items():
            pq.write_table(table, path)
    assert after is not None
    assert after.ratio.value == pytest.approx(before.ratio.value, rel=1e-5)
    assert after.difference.value == pytest.approx(before.difference.value * factor, rel=1e-3, abs=1e-5)


def test_the_same_data_give_the_same_results_and_survive_json(small: Path) -> None:
    results = analyse(small)
    assert analyse(small) == results
    read = msgspec.json.decode(msgspec.json.encode(results), type=Results)
    assert differences(read, results) == []
    assert differences(json.loads(msgspec.json.encode(results)), results) == []


def test_one_changed_sample_is_a_named_difference(small: Path) -> None:
    recorded = analyse(small)
    cell = small / "cells/b003/dds"
    table = pq.read_table(cell / "samples.parquet")
    try:
        done = table["done_ns"].to_pylist()
        done[-1] += 1_000_000_000
        rewritten(cell, done_ns=done)
        said = differences(recorded, analyse(small))
    finally:
        pq.write_table(table, cell / "samples.parquet")
    assert any(
        each.startswith("figures[one-client, dds].metrics.latency.percentiles.p95.value: it says ") for each in said
    )
    assert not any("zeromq]" in each for each in said)
