"""The files of a report: whole, the same for the same data, and with nothing in them that runs where it is read."""

from __future__ import annotations

import csv
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of

from anywire.errors import AnywireError
from anywire_experiment import report
from anywire_experiment.analysis.analyse import analyse, differences
from anywire_experiment.report.drawing import drawn, svg
from anywire_experiment.report.numbers import interval, number, percent_change
from anywire_experiment.statistics import Estimate

NAMES = ["results.json", "report.html", "report.md", "results.csv", "results.tex"]
KILL = {"seconds": 4, "arrivals": {"kind": "poisson", "rate": 100}, "fault": {"kind": "kill", "at": 1, "lasts": 2}}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> | `rm` $x_y$ \\input{z} & 5 %"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three transports with everything in it: failures, a failed cell, a fault, a stream."""
    tree = plan_of(
        question=EVIL,
        factors={"transport": ["zeromq", "dds", "http"]},
        workloads={"one-client": {"requests": 120}, "streams": {"requests": 60, "stream": True}, "kill": KILL},
    )
    truths = {"dds": Truth(shift_us=300), "http": Truth(failing=0.03, code=EVIL, broken=frozenset({2}), reason=EVIL)}
    folder = fabricate(tmp_path_factory.mktemp("whole"), tree, truths)
    link = {"kind": "namespaces", "measured": {"delay_ms": 5.01, "jitter_ms": 0.1, "loss": 0.01}}
    link["measured"] |= {"bandwidth_mbit": None, "faults": [EVIL]}  # type: ignore[operator]
    (folder / "cells/b001/dds/link.json").write_text(json.dumps(link))
    report.write(folder)
    return folder


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(record: Path) -> Page:
    return Page((record / "report.html").read_text())


def test_every_file_is_written_and_small_enough_to_send(record: Path) -> None:
    assert all((record / name).stat().st_size > 500 for name in NAMES)
    assert (record / "report.html").stat().st_size < 3_000_000


def test_the_same_data_give_the_same_files(record: Path) -> None:
    before = {name: (record / name).read_bytes() for name in NAMES}
    assert [path.name for path in report.write(record)] == NAMES
    assert {name: (record / name).read_bytes() for name in NAMES} == before


def test_the_results_written_are_those_of_the_raw_data(record: Path) -> None:
    assert differences(json.loads((record / "results.json").read_bytes()), analyse(record)) == []


def test_text_of_users_is_inert(page: Page, record: Path) -> None:
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.all("img") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "&lt;script&gt;alert(1)" in (record / "report.html").read_text()


def test_the_page_asks_for_nothing(page: Page, record: Path) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), value
    assert not re.search(r"@import|url\((?!#)", (record / "report.html").read_text())


def test_ids_are_unique_and_every_reference_leads_somewhere(page: Page, record: Path) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    text = (record / "report.html").read_text()
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert len(used) > 50
    assert used <= set(ids)


def test_the_page_can_be_read_without_eyes(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {each.get("scope") for each in page.all("th")} == {"col", "row"}
    svgs = page.all("svg")
    assert len(svgs) == len(page.all("figure")) == len(page.all("desc")) >= 12
    ids = {attributes.get("id") for _, attributes in page.elements}
    for each in svgs:
        assert each["role"] == "img"
        assert set((each["aria-labelledby"] or "").split()) <= ids


def test_the_verdict_comes_first_with_what_speaks_against_it(record: Path) -> None:
    text = (record / "report.html").read_text()
    body = text[text.index("<body>") :]
    first = "dds is slower than zeromq by "
    places = [body.index(first), body.index("1 of 48 cells failed"), body.rindex(first), body.index("<svg")]
    assert places == sorted(places)
    assert "requests of http failed, and count as slower" in body
    assert "the data rule out that the arms are 10\N{NO-BREAK SPACE}% or more apart" in body


def test_the_markdown_has_every_table_and_no_live_markup(record: Path) -> None:
    text = (record / "report.md").read_text()
    for title in ("Compared with zeromq", "Figures", "Percentiles", "Requests", "Faults", "Where the time goes"):
        assert f"### {title}\n" in text
    assert "<script>" not in text.split("```")[0]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) > 15
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_the_sheet_has_a_row_for_each_figure_and_comparison(record: Path) -> None:
    with (record / "results.csv").open() as sheet:
        rows = list(csv.DictReader(sheet))
    results = analyse(record)
    arms = sum(len(each.metrics) for each in results.figures)
    assert [each["kind"] for each in rows].count("arm") == arms
    assert [each["kind"] for each in rows].count("comparison") == len(results.comparisons)
    wanted = {"kind": "comparison", "workload": "one-client", "metric": "latency", "arm": "dds"}
    (row,) = [each for each in rows if wanted.items() <= each.items()]
    (found,) = [
        each.comparison
        for each in results.comparisons
        if (each.workload, each.metric, each.candidate) == ("one-client", "latency", "dds")
    ]
    assert found is not None
    assert (float(row["ratio"]), float(row["ratio_low"])) == (found.ratio.value, found.ratio.low)
    assert row["outcome"] == "worse"


def test_the_latex_is_balanced_and_escaped(record: Path) -> None:
    text = (record / "results.tex").read_text()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 9
    assert r"\input{" not in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 9
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert rows
    assert not any(re.search(r"(?<!\\)[%#_]", line) for line in rows)


def test_a_report_of_an_unfinished_record(tmp_path: Path) -> None:
    """With one whole cell, a failed one, and the rest to come."""
    tree = plan_of(blocks=3, workloads={"one-client": {"requests": 60}, "kill": KILL})
    folder = fabricate(tmp_path, tree, {"dds": Truth(broken=frozenset({1}))}, without=lambda block, arm: block > 1)
    report.write(folder)
    assert "4 of 6 cells have not run" in (folder / "report.html").read_text()


def test_a_report_without_one_whole_answer(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(blocks=2), dict.fromkeys(("zeromq", "dds"), Truth(failing=1.0)))
    report.write(folder)
    assert "Nothing could be judged" in (folder / "report.html").read_text()


def test_the_texts_of_a_figure_stay_as_they_are() -> None:
    with drawn(2.0) as figure:
        axes = figure.subplots()
        axes.set_title("0.123456 <b>$x_1$")
        axes.plot([0.0, 1.0], [0.0, 0.075])
        image = svg(figure, "one", "<title>", "d")
        assert svg(figure, "one", "<title>", "d") == image
    assert "0.123456 &lt;b&gt;$x_1$" in image
    assert '<title id="one-title">&lt;title&gt;</title>' in image
    assert not re.search(r' d="[^"]*\.\d{3}', image)


# Two records side by side


def test_a_repetition_that_agrees_and_one_that_does_not(tmp_path: Path, record: Path) -> None:
    folders = [
        fabricate(tmp_path / name, plan_of(seed=seed), {"dds": Truth(factor=factor)})
        for name, seed, factor in (("a", 1, 1.5), ("b", 2, 1.5), ("c", 3, 1.0))
    ]
    for folder in folders[:2]:  # the results of the third are computed
        report.write(folder)
    same = report.side_by_side(folders[0], folders[1])
    assert "1 of 1 verdicts are the same in both." in same
    assert re.search(r"one-client, latency +dds / zeromq .* slower +slower +yes", same)
    other = report.side_by_side(folders[0], folders[2])
    assert "0 of 1 verdicts are the same in both." in other
    assert re.search(r"slower +equivalent within 10 % +NO", other)
    unlike = report.side_by_side(folders[0], record)
    assert "Only in B: arms http." in unlike


def test_side_by_side_as_files(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "a", plan_of(blocks=2))
    said = report.side_by_side(folder, folder, tmp_path / "both.md")
    assert said in (tmp_path / "both.md").read_text()
    report.side_by_side(folder, folder, tmp_path / "both.html")
    assert (tmp_path / "both.html").read_text().startswith("<!doctype html>")
    (folder / "results.json").write_text("{}")
    with pytest.raises(AnywireError, match="makes it anew"):
        report.side_by_side(folder, folder)


# Numbers


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (99.96, "100"),
        (12345.6, "12\u202f300"),
        (-3, "−3.00"),
    ],
)
def test_a_number_has_three_digits(value: float, told: str) -> None:
    assert number(value) == told


def test_an_interval_has_the_digits_that_it_knows() -> None:
    assert interval(Estimate(12.3456, 11.9, 12.8, 0.95)) == "12.35 (11.90 to 12.80)"
    assert interval(Estimate(1234.5, 1000.0, 1500.0, 0.95)) == "1\u202f234 (1\u202f000 to 1\u202f500)"
    assert interval(Estimate(802.41234, 802.41230, 802.41239, 0.95)) == "802.41 (802.41 to 802.41)"
    assert interval(Estimate(0.0, 0.0, 0.107, 0.95)) == "0.000 (0.000 to 0.107)"
    assert interval(None) == "–"
    assert percent_change(Estimate(1.123, 1.101, 1.146, 0.95)) == "+12.3 % (+10.1 to +14.6)"
    assert percent_change(Estimate(1.0, 1.0, 1.0, 0.95)).startswith("0.0 %")
