"""The report as one HTML page that asks for nothing outside of itself."""

from __future__ import annotations

from typing import NamedTuple

import jinja2

from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.wording import place
from anywire_experiment.record.manifest import fingerprint
from anywire_experiment.report import plots, sections, surroundings, tables
from anywire_experiment.report.drawing import Picture
from anywire_experiment.statistics import Outcome

SIGNS = {
    Outcome.BETTER: "▲",
    Outcome.WORSE: "▼",
    Outcome.EQUIVALENT: "≈",
    Outcome.NOT_ENOUGH_DATA: "?",
}


class Finding(NamedTuple):
    """A comparison on the first screen."""

    outcome: str
    about: str
    text: str
    but: list[str]


class WorkloadSection(NamedTuple):
    id: str
    name: str
    about: str
    pictures: list[Picture]
    tables: list[tables.Table]


def html(record: RawData, results: Results) -> str:
    """Raises `RecordError`."""
    loader = jinja2.PackageLoader("anywire_experiment.report", "")
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    assert templates.loader is not None
    css, _, _ = templates.loader.get_source(templates, "page.css")
    given = (record.folder / "plan.yaml").read_text(encoding="utf-8")
    return templates.get_template("page.html.j2").render(
        results=results,
        css=css,
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
        overall=[each for each in (tables.cells(results), tables.same_answers(results)) if each.rows],
        environment=surroundings.environment(record),
        settings=surroundings.settings(record),
        commands=surroundings.commands(record),
        fingerprint=fingerprint(record.folder),
        plan=given,
    )


def findings(results: Results, workload: str) -> list[Finding]:
    """What is said of a workload, in the order of the plan; failures only where there were any."""
    given = [each for each in results.comparisons if each.workload == workload]
    told: set[tuple[str, str]] = set()
    made = []
    for each in given:
        if each.metric == "failures" and not _failed(results, each):
            continue
        # A caution holds for a pair of arms; once per pair is enough.
        new = [caution for caution in each.caution if (caution, each.candidate) not in told]
        told.update((caution, each.candidate) for caution in new)
        outcome = f"{SIGNS[each.verdict.outcome]} {each.verdict.words}" if each.verdict else "· not judged"
        made.append(Finding(outcome, place(each.metric, each.levels), f"{each.sentence}.", new))
    return made


def _failed(results: Results, each: ComparisonFigures) -> bool:
    arms = (each.baseline, each.candidate)
    return any(found.failed for found in results.figures if found.workload == each.workload and found.arm in arms)
