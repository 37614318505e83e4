"""The report as one HTML page that asks for nothing outside of itself."""

from __future__ import annotations

from typing import NamedTuple

from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.report import plots, sections, surroundings
from anywire_experiment.report.drawing import Picture
from anywire_experiment.report.findings import findings
from anywire_experiment.report.summary import summary
from anywire_experiment.report.tables import Table
from anywire_experiment.report.templates import rendered


class WorkloadSection(NamedTuple):
    id: str
    name: str
    about: str
    pictures: list[Picture]
    tables: list[Table]


def html(record: RawData, results: Results) -> str:
    """Raises `RecordError`."""
    return rendered(
        "page.html.j2",
        results=results,
        summary=summary(record, results),
        findings={name: findings(results, name) for name in results.workloads},
        percent=lambda share: f"{100 * share:g} %",
        workloads=[
            WorkloadSection(
                f"workload-{at}",
                name,
                surroundings.about(record.plan.workloads[name]),
                plots.of_workload(record, results, name, f"w{at}"),
                sections.of_workload(results, name),
            )
            for at, name in enumerate(results.workloads, start=1)
        ],
        overall=sections.overall(results),
        environment=surroundings.environment(record),
        settings=surroundings.settings(record),
        commands=surroundings.commands(record),
        fingerprint=record.fingerprint,
        plan=(record.folder / "plan.yaml").read_text(encoding="utf-8"),
    )
