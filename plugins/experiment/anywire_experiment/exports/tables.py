"""Every table of a report as CSV and LaTeX."""

from __future__ import annotations

import csv as csv_files
import io
import re
from collections.abc import Iterator

from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.report import sections, surroundings
from anywire_experiment.report.latex_tables import PACKAGES, tabular
from anywire_experiment.report.tables import Table

WHOLE = "record"
"""The folder of tables that are of no workload; those of one are inside of ``workloads``, so none has this name."""


def files(raw: RawData, results: Results, *, csv: bool, latex: bool) -> Iterator[tuple[str, bytes]]:
    """Of LaTeX also ``tables/all.tex``, a document with all of them, to be compiled there."""
    inputs = []
    for name, about, table in _named(raw, results):
        if csv:
            yield f"tables/{name}.csv", _sheet(table)
        if latex:
            yield f"tables/{name}.tex", (tabular(table, about) + "\n").encode()
            inputs.append(name)
    if latex:
        yield "tables/all.tex", _document(inputs)


def _named(raw: RawData, results: Results) -> Iterator[tuple[str, str, Table]]:
    """File name, what it is about, and table."""
    for workload in results.workloads:
        yield from _unlike(f"workloads/{workload}", workload, sections.of_workload(results, workload))
    overall = [*sections.overall(results), *surroundings.environment(raw)]
    yield from _unlike(WHOLE, results.name, [each for each in overall if each.rows])


def _unlike(folder: str, about: str, found: list[Table]) -> Iterator[tuple[str, str, Table]]:
    taken: set[str] = set()
    for table in found:
        name = plain = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") or "table"
        count = 1
        while name in taken:
            count += 1
            name = f"{plain}-{count}"
        taken.add(name)
        yield f"{folder}/{name}", about, table


def _sheet(table: Table) -> bytes:
    target = io.StringIO()
    writer = csv_files.writer(target, lineterminator="\n")
    writer.writerows([table.head, *table.rows])
    return target.getvalue().encode()


def _document(names: list[str]) -> bytes:
    lines = [
        "% pdflatex all.tex, in this folder",
        r"\documentclass{article}",
        PACKAGES,
        r"\usepackage[margin=2cm]{geometry}",
        r"\begin{document}",
        *(rf"\input{{{name}}}" + "\n" + r"\clearpage" for name in names),
        r"\end{document}",
    ]
    return ("\n".join(lines) + "\n").encode()
