"""The report of a record: a page, and the same as Markdown, CSV and LaTeX; and two records side by side.

Drawing takes libraries that are slow to import, so nothing is imported before it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from anywire_experiment.analysis.results import Results


def write(folder: Path, out: Path | None = None) -> list[Path]:
    """Compute the results of the record in ``folder`` from its raw data and write ``results.json``, ``report.html``,
    ``report.md``, ``results.csv`` and ``results.tex`` there, or into ``out``; the same data give the same files.
    Returns their paths. Raises `RecordError` or `ConfigError` when it is no record that can be read, OSError when it
    cannot be written."""
    from anywire_experiment.record.storage import write_whole

    target = out or folder
    made = texts(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        write_whole(target / name, text.encode())
    return [target / name for name in made]


def texts(folder: Path) -> dict[str, str]:
    """The files that `write` writes, by name. Raises `RecordError` or `ConfigError`."""
    from anywire_experiment.analysis.analyse import analysed
    from anywire_experiment.analysis.raw import RawData
    from anywire_experiment.report import page, writing

    record = RawData(folder)
    results = analysed(record)
    return {
        "results.json": _text_of(results),
        "report.html": page.html(record, results),
        "report.md": writing.markdown(record, results),
        "results.csv": writing.sheet(results),
        "results.tex": writing.latex(results),
    }


def results_text(folder: Path) -> str:
    """``results.json`` alone, which takes a part of the time. Raises `RecordError` or `ConfigError`."""
    from anywire_experiment.analysis.analyse import analyse

    return _text_of(analyse(folder))


def _text_of(results: Results) -> str:
    return json.dumps(msgspec.to_builtins(results, str_keys=True), indent=2, ensure_ascii=False) + "\n"


def side_by_side(
    first: Path,
    second: Path,
    target: Path | None = None,
    notes: Sequence[str] = (),
    shown: Sequence[Path] | None = None,
) -> str:
    """Two records of the same arms, workloads and metrics beside each other, as text for a terminal; also written to
    ``target``, as a page when it ends in ``.html``, else as Markdown. ``notes`` are sentences for its reader, ``shown``
    how the two are named there when not by their folders. Nothing is verified here
    (`anywire_experiment.outcome.compared`). Raises `RecordError` or `ConfigError`."""
    from anywire_experiment.report import beside

    return beside.told(first, second, target, notes, shown)
