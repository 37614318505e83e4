"""What is exported: the same bytes each time, every table and figure, in forms that other programs take."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of
from typer.testing import CliRunner

from anywire.errors import ConfigError
from anywire_experiment import report
from anywire_experiment.analysis.analyse import analysed
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.cli import app
from anywire_experiment.exports.export import FORMATS, ORIGIN, chosen, export
from anywire_experiment.frames import NAMES, load
from anywire_experiment.record.manifest import seal
from anywire_experiment.record.storage import RecordError
from anywire_experiment.report import plots, sections
from anywire_experiment.report.latex_tables import escaped, tabular
from anywire_experiment.report.tables import Table

ODD = 'never ready: 100 % of $HOME & {x}_y #1 ~ ^ \\ "é" → 漢 [1] *2*'
TREE = plan_of(
    name="odd.na_me",
    blocks=8,
    workloads={"one_client": {"requests": 60}, "st.reams": {"requests": 40, "stream": True}},
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    truths = {"dds": Truth(factor=1.5, failing=0.05, broken=frozenset({2}), reason=ODD)}
    folder = fabricate(tmp_path_factory.mktemp("exports") / "record", TREE, truths)
    report.write(folder)
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def exported(record: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "new"
    export(record, out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_the_same_byte_for_byte_in_another_process(record: Path, exported: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom anywire_experiment.exports.export import export\n"
        "export(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, record, tmp_path / "again"], check=True)
    first, second = contents(exported), contents(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_every_table_and_figure_of_the_report_is_there(record: Path, exported: Path) -> None:
    names = set(contents(exported))
    raw = RawData(record)
    results = analysed(raw)
    for workload in results.workloads:
        tables = len(sections.of_workload(results, workload))
        drawn = len(plots.of_workload(raw, results, workload, "x"))
        for folder, suffix, count in (
            (f"tables/workloads/{workload}", ".csv", tables),
            (f"tables/workloads/{workload}", ".tex", tables),
            (f"figures/{workload}", ".svg", drawn),
            (f"figures/{workload}", ".pdf", drawn),
        ):
            assert sum(name.startswith(f"{folder}/") and name.endswith(suffix) for name in names) == count > 3
    assert {f"data/{name}.{kind}" for name in NAMES for kind in ("parquet", "csv")} <= names
    assert {f"tables/record/{name}.csv" for name in ("cells", "machine-and-software", "sessions-of-the-run")} <= names
    assert set(json.loads((exported / ORIGIN).read_bytes())["files"]) == names - {ORIGIN}


def test_the_data_are_those_of_the_record_with_their_meanings(record: Path, exported: Path) -> None:
    tables = load(record)
    for name, table in zip(NAMES, tables, strict=True):
        read = pq.read_table(exported / f"data/{name}.parquet")
        assert read.equals(table, check_metadata=False)
        assert read.schema.field(0).metadata[b"meaning"]
        sheet = pa_csv.read_csv(exported / f"data/{name}.csv")
        assert (sheet.num_rows, sheet.column_names) == (table.num_rows, table.column_names)
    pieces = pa_csv.read_csv(
        exported / "data/requests.csv", convert_options=pa_csv.ConvertOptions(column_types={"piece_ns": pa.string()})
    )["piece_ns"].to_pylist()
    assert [[int(at) for at in (each or "").split()] for each in pieces] == tables.requests["piece_ns"].to_pylist()


def test_tables_are_what_the_report_shows(record: Path, exported: Path) -> None:
    results = analysed(RawData(record))
    table = sections.of_workload(results, "one_client")[0]
    with (exported / "tables/workloads/one_client/compared-with-zeromq.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [table.head, *table.rows]


def test_figures_are_vectors_in_colours_for_paper(exported: Path) -> None:
    for path in exported.glob("figures/*/*.svg"):
        root = ET.parse(path).getroot()
        assert root.tag.endswith("svg")
        text = path.read_text()
        assert not re.search(r"<image|<text|currentColor|var\(|#010203|#fdfcfb|#0a0b0c|<dc:date", text), path
        assert "#111111" in text
    for path in exported.glob("figures/*/*.pdf"):
        content = path.read_bytes()
        assert content.startswith(b"%PDF-")
        assert b"CreationDate" not in content
        assert b"/FontFile2" in content, "fonts are inside"
        assert b"/Subtype /Image" not in content


def test_the_page_keeps_its_own_colours(record: Path) -> None:
    page = (record / "report.html").read_text()
    assert "currentColor" in page
    assert "#111111" not in page[page.index("<body>") :]


LATEX = shutil.which("pdflatex")


@pytest.mark.skipif(LATEX is None, reason="missing: pdflatex (Debian: texlive-latex-recommended)")
def test_the_document_with_all_tables_compiles(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported / "tables", tmp_path / "tables")
    command = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path / "tables", capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "tables/all.pdf").stat().st_size > 10_000


def test_any_text_is_plain_in_latex() -> None:
    every = "".join(map(chr, range(32, 127))) + "µ−–×→漢é\N{NARROW NO-BREAK SPACE}\n\t"
    told = escaped(every)
    assert told.isascii()
    assert not re.search(r"(?<!\\)[&%$#_]", told)
    assert "U+6F22" in told
    row = tabular(Table("T", ["a", "b"], [["[x]", "*"]]), "about").splitlines()[-4]
    assert row.strip() == r"{[}x{]} & {*} \\"


def test_formats_are_chosen_by_name(record: Path, tmp_path: Path) -> None:
    assert chosen(()) == list(FORMATS)
    assert chosen(["pdf,csv", "pdf"]) == ["csv", "pdf"]
    with pytest.raises(ConfigError, match="--format latx: did you mean 'latex'"):
        chosen(["latx"])
    done = CliRunner().invoke(app, ["export", str(record), "--out", str(tmp_path / "new"), "--format", "parquet"])
    assert done.exit_code == 0, done.output
    assert done.output.endswith("new: 6 files\n")
    assert {Path(name).suffix for name in contents(tmp_path / "new")} == {".parquet", ".json"}


def test_a_folder_with_something_in_it_is_left_alone(record: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RecordError, match="is not an empty folder: choose another with --out"):
        export(record, tmp_path, ["csv"])
    with pytest.raises(RecordError, match="is not an empty folder"):
        export(record, tmp_path / "mine.txt", ["csv"])
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


def test_a_record_that_was_edited_is_refused_and_nothing_is_written(record: Path, tmp_path: Path) -> None:
    shutil.copytree(record, tmp_path / "record")
    path = tmp_path / "record/cells/b001/dds/samples.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(RecordError, match="changed since it was sealed"):
        export(tmp_path / "record", tmp_path / "out")
    assert not (tmp_path / "out").exists()
