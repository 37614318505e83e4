"""The report as one HTML page that asks for nothing outside of itself."""

from __future__ import annotations

from typing import NamedTuple

import jinja2

from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.record.manifest import fingerprint
from anywire_experiment.report import plots, sections, surroundings
from anywire_experiment.report.drawing import Picture
from anywire_experiment.report.findings import findings
from anywire_experiment.report.summary import summary
from anywire_experiment.report.tables import Table

MOST_ROWS = 30
"""Of a table that is not folded."""


class WorkloadSection(NamedTuple):
    id: str
    name: str
    about: str
    pictures: list[Picture]
    tables: list[Table]


def html(record: RawData, results: Results) -> str:
    """Raises `RecordError`."""
    templates = environment()
    assert templates.loader is not None
    css, _, _ = templates.loader.get_source(templates, "page.css")
    given = (record.folder / "plan.yaml").read_text(encoding="utf-8")
    return templates.get_template("page.html.j2").render(
        results=results,
        css=css,
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
        fingerprint=fingerprint(record.folder),
        plan=given,
    )


def environment() -> jinja2.Environment:
    """Of the templates of this folder."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("anywire_experiment.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["MOST_ROWS"] = MOST_ROWS
    # A number stays with its sign and its unit.
    made.filters["units"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    return made
