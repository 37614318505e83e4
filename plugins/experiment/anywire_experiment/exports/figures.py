"""Every figure of a report as SVG and PDF."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.report import plots
from anywire_experiment.report.vectors import KINDS, Kind, collected

__all__ = ["KINDS", "Kind", "files"]


def files(raw: RawData, results: Results, kinds: Collection[Kind]) -> Iterator[tuple[str, bytes]]:
    """Names and contents."""
    for workload in results.workloads:
        with collected(kinds) as drawn:
            plots.of_workload(raw, results, workload, "figure")
        for name, content in drawn.items():
            yield f"figures/{workload}/{name.removeprefix('figure-')}", content
