"""The parts of a report that tell how far its figures go: order of blocks, what is missing, much at once."""

from __future__ import annotations

import html
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.experiment.fabricated import Truth, fabricate, plan_of

from anywire_experiment import report
from anywire_experiment.analysis.analyse import analysed
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.report import missing, page, plots, run_order, sections, surroundings, traffic
from anywire_experiment.report.drawing import MOST_ARMS, brief_names, looks
from anywire_experiment.report.findings import MOST_UNFOLDED, findings
from anywire_experiment.report.intervals import MOST_ROWS
from anywire_experiment.report.summary import summary
from anywire_experiment.report.tables import Table
from anywire_experiment.report.templates import environment
from anywire_experiment.statistics import Estimate

TREE = plan_of(blocks=16, factors={"transport": ["zeromq", "dds", "http"]}, workloads={"one-client": {"requests": 80}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    truths = {"dds": Truth(factor=1.5), "http": Truth(failing=0.03, broken=frozenset({2}))}
    return fabricate(tmp_path_factory.mktemp("parts"), TREE, truths)


@pytest.fixture(scope="module")
def record(folder: Path) -> RawData:
    return RawData(folder)


@pytest.fixture(scope="module")
def results(record: RawData) -> Results:
    return analysed(record)


def test_the_headline_names_arms_and_sizes(results: Results) -> None:
    assert results.headline.startswith("dds is slower than zeromq by ")
    assert "under one-client" in results.headline


def test_the_order_of_the_blocks_is_a_table_and_a_figure(results: Results) -> None:
    table = run_order.table(results, "one-client")
    assert [row[0] for row in table.rows] == ["dds", "http"]
    assert {row[-1] for row in table.rows} <= {"neither shown", "dependent, which the interval allows for"}
    (picture,) = run_order.pictures(results, "one-client", "order", results.arms)
    assert "lag-1 correlation" in picture.caption
    assert run_order.pictures(results, "none", "order", results.arms) == []


def test_a_drift_is_told_as_one(results: Results) -> None:
    replace = msgspec.structs.replace
    leaking = []
    for each in results.comparisons:
        if each.comparison is not None:
            per_block = Estimate(1.01, 1.008, 1.012, 0.95)
            order = replace(each.comparison.order, drifts=True, first=1.4, last=1.6, per_block=per_block)
            each = replace(each, comparison=replace(each.comparison, order=order))
        leaking.append(each)
    told = replace(results, comparisons=leaking)
    assert run_order.table(told, "one-client").rows[0][-1] == "drifting, from a ratio of 1.40 to 1.60"
    (picture,) = run_order.pictures(told, "one-client", "order", results.arms)
    assert "drift of +1.0 % per block" in picture.caption


def test_what_is_missing_has_its_own_table(results: Results) -> None:
    table = missing.missing(results, "one-client")
    (row,) = table.rows
    assert row[0] == "http"
    assert row[4] == "1 of 16"
    assert re.fullmatch(r"\d\.\d %", row[3])


def test_curves_of_an_arm_that_fails_end_below_one(record: RawData, results: Results) -> None:
    pictures = plots.of_workload(record, results, "one-client", "x")
    (curve,) = [each for each in pictures if "Distribution of latency" in each.caption]
    assert "A curve that ends below 1: the rest of the requests failed." in curve.caption
    typical = next(each.metrics["latency"].typical for each in results.figures if each.arm == "dds")
    assert typical is not None
    assert f"dds {typical.value:.3g}"[:6] in curve.caption


def test_the_first_lines_say_what_was_run(record: RawData, results: Results) -> None:
    told = dict(summary(record, results))
    assert told["Arms"] == "zeromq, dds, http"
    assert told["Blocks"] == "16, each with every arm once; 47 of 48 cells are whole"
    assert told["Energy"].startswith("not ")
    assert {"Ran", "Code", "Machine", "Compared with"} <= told.keys()


def test_long_tables_are_folded() -> None:
    shown = environment().from_string('{% from "table.html.j2" import shown %}{{ shown(table) }}')
    short = shown.render(table=Table("T", ["a", "b"], [["x", "1 %"]] * 30))
    long = shown.render(table=Table("T", ["a", "b"], [["x", "1 %"]] * 31))
    assert "<details>" not in short
    assert "1\N{NO-BREAK SPACE}%" in short
    assert "<details><summary>Show the 31 rows</summary>" in long


def test_much_at_once_stays_readable(tmp_path: Path) -> None:
    """Of 30 arms: every one is in the tables, the figures draw those that can be told apart and say so."""
    names = [f"arm-{at:02}" for at in range(30)]
    tree = plan_of(blocks=6, factors={"selector": names}, workloads={"one-client": {"requests": 20}})
    tree["metrics"] = ["latency", "throughput"]
    folder = fabricate(tmp_path, tree, {"arm-07": Truth(factor=2.0)})
    record = RawData(folder)
    results = analysed(record)
    arms = plots.arms_drawn(results)
    assert len(arms) == MOST_ARMS
    assert {"arm-00", "arm-07"} <= set(arms)
    pictures = plots.of_workload(record, results, "one-client", "x")
    assert sum(f"Drawn are {MOST_ARMS} of 30 arms" in each.caption for each in pictures) >= 3
    found = findings(results, "one-client")
    assert len(found.unfolded) == MOST_UNFOLDED
    assert len(found.unfolded) + len(found.folded) == 58
    assert found.rest.startswith("46 more: ")
    assert len(results.comparisons) == 58 > MOST_ROWS
    report.write(folder)
    page = (folder / "report.html").read_text()
    assert "46 more: not enough data 46" in page
    assert all(f">{name}<" in page for name in names)


def test_a_workload_without_comparisons_has_no_findings(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(blocks=2, factors={}, workloads={"one-client": {"requests": 20}}))
    record = RawData(folder)
    results = analysed(record)
    assert findings(results, "one-client").unfolded == []
    assert run_order.table(results, "one-client").rows == []
    assert sections.of_workload(results, "one-client")
    report.write(folder)


def test_arms_are_told_apart_without_colour() -> None:
    given = looks([str(at) for at in range(MOST_ARMS)]).values()
    for part in ("line", "marker", "hatch"):
        assert len({getattr(each, part) for each in given}) == MOST_ARMS, part


@pytest.mark.filterwarnings("error::UserWarning")
def test_long_names_leave_room_for_what_is_drawn(tmp_path: Path) -> None:
    factors = {
        factor: [f"a-{factor}-with-a-long-name-and-a-revision-of-its-own-{at}" for at in (1, 2)]
        for factor in ("selector", "scheduler")
    }
    tree = plan_of(blocks=6, factors=factors, workloads={"one-client": {"requests": 30, "stream": True}})
    record = RawData(fabricate(tmp_path / "long", tree))
    pictures = plots.of_workload(record, analysed(record), "one-client", "x")
    assert len(pictures) > 4
    for picture in pictures:
        drawn = re.findall(r"<text [^>]*>([^<]*)</text>", picture.image)
        assert drawn
        assert max(map(len, drawn)) < 80


def test_names_that_are_shortened_stay_apart() -> None:
    names = brief_names(["dds", f"{'a' * 20}1{'b' * 20}", f"{'a' * 20}2{'b' * 20}"])
    assert list(names.values()) == ["dds", "aaaaaaaaaaaaa…bbbbbbbbbbbb (2)", "aaaaaaaaaaaaa…bbbbbbbbbbbb (3)"]


def test_percentiles_are_said_to_be_what_they_are(results: Results) -> None:
    (table,) = [each for each in sections.of_workload(results, "one-client") if each.title == "Percentiles"]
    assert table.note.startswith("Median over the blocks")


def test_code_in_sentences_is_shown_as_code_and_a_strangers_text_stays_text() -> None:
    shown = environment().from_string('{% from "table.html.j2" import shown %}{{ shown(table) }}')
    note = "Set `<script>alert(1)</script>` or `cpus`; <i>5 %</i> of ` and ``."
    page = shown.render(table=Table("T", ["a", "b"], [["`x`", "raise `a|b`"]], note, frozenset({1})))
    assert "Set <code>&lt;script&gt;alert(1)&lt;/script&gt;</code> or <code>cpus</code>; &lt;i&gt;5" in page
    assert "of ` and ``." in page.replace("<code> and </code>", "` and `")
    assert "<code>a|b</code>" in page
    assert "<script" not in page


@given(st.text(alphabet="`<>&ab \n\"'", max_size=40))
def test_no_text_makes_elements_but_code(text: str) -> None:
    shown = environment().from_string('{% from "prose.html.j2" import prose %}{{ prose(text) }}').render(text=text)
    rest = shown.replace("<code>", "").replace("</code>", "")
    assert not {"<", ">"} & {*rest}
    assert html.unescape(rest).replace("`", "") == text.replace("`", "")


def test_no_two_tables_of_a_report_have_one_name(record: RawData, results: Results) -> None:
    made = [*sections.of_workload(results, "one-client"), traffic.table([]), *sections.overall(results)]
    titles = [each.title for each in (*made, *surroundings.environment(record))]
    assert len(titles) == len(set(titles))


def test_what_one_block_lacks_is_said_once_for_all_comparisons(tmp_path: Path) -> None:
    workloads = {name: {"requests": 20} for name in ("one-client", "two", "three")}
    tree = plan_of(blocks=1, factors={"transport": ["zeromq", "dds", "http", "tcp"]}, workloads=workloads)
    folder = fabricate(tmp_path, tree, {"dds": Truth(failing=0.2)})
    record = RawData(folder)
    results = analysed(record)
    made = [findings(results, name) for name in results.workloads]
    (only,) = [each for found in made for each in (*found.unfolded, *found.folded)]
    assert only.about == f"all {9 + 3} comparisons"
    assert only.text == "a comparison needs 2 blocks or more, and 1 of 1 count for both arms."
    assert results.headline == (
        "Nothing could be judged of dds, http and tcp beside zeromq: a comparison needs 2 blocks or more, and 1 of 1 "
        "count for both arms."
    )
    said = page.html(record, results)
    listed = said[said.index('id="findings"') : said.index('<div class="notes">')]
    assert listed.count("needs 2 blocks or more") == 1


def test_what_several_comparisons_lack_alike_is_said_once_beside_the_others(results: Results) -> None:
    judged = [each for each in results.comparisons if each.candidate == "dds"]
    reason = "the energy was not counted"
    lacking = [
        msgspec.structs.replace(
            judged[0], candidate=name, comparison=None, verdict=None, reason=reason, sentence=f"{name} and z: {reason}"
        )
        for name in ("http", "tcp", "udp")
    ]
    found = findings(msgspec.structs.replace(results, comparisons=[*judged, *lacking]), "one-client")
    (last,) = [each for each in found.unfolded if each.outcome.endswith("not judged")]
    assert (last.about, last.text) == ("3 comparisons, latency of http, tcp and udp", f"{reason}.")
    assert len(found.unfolded) == len([each for each in judged if each.metric != "failures"]) + 1


@pytest.mark.parametrize(("arms", "said"), [(4, 3), (20, MOST_UNFOLDED + 1)])
def test_why_blocks_are_missing_is_said_where_nothing_can_be_compared(tmp_path: Path, arms: int, said: int) -> None:
    factors = {"agents": [{f"t{at:02}": at + 1} for at in range(arms)]}
    broken = {f"t{at:02}": Truth(broken=frozenset({1, 2})) for at in range(1, arms)}
    results = analysed(RawData(fabricate(tmp_path, plan_of(blocks=3, factors=factors, metrics=["latency"]), broken)))
    (only,) = [each for name in results.workloads for each in findings(results, name).unfolded]
    assert only.text == "a comparison needs 2 blocks or more, and 1 of 3 count for both arms."
    assert only.but[0] == "2 of 3 blocks are left out (block 1: the cell of t01 failed)"
    assert len(only.but) == said
