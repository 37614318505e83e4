"""The report as Markdown, as LaTeX tables, and as a sheet with one row per figure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from anywire_experiment.analysis.arm_figures import Valued
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.analysis.wording import meaning_of
from anywire_experiment.report import latex_tables, sections, surroundings, tables
from anywire_experiment.report.findings import Finding, findings
from anywire_experiment.report.summary import summary
from anywire_experiment.report.tables import Table
from anywire_experiment.report.templates import by_code
from anywire_experiment.statistics import Estimate

COLUMNS = [
    *("kind", "workload", "metric", "unit", "arm", "baseline", "factors", "blocks", "samples", "effective"),
    *("requests", "failed"),
    *(f"{name}{limit}" for name in ("value", "p50", "p90", "p95", "p99") for limit in ("", "_low", "_high")),
    *(f"{name}{limit}" for name in ("ratio", "difference") for limit in ("", "_low", "_high")),
    *("p_different", "p_different_adjusted", "p_equivalent", "p_equivalent_adjusted", "outcome", "reason"),
]


def markdown(record: RawData, results: Results) -> str:
    """Raises `RecordError`."""
    parts = [f"# {_plain(results.name)}", _plain(results.question), f"**{_prose(results.headline)}**"]
    parts.append("\n".join(f"- {term}: {_prose(said)}" for term, said in summary(record, results)))
    if results.cautions:
        parts.append("Read with caution:\n\n" + "\n".join(f"- {_prose(each)}" for each in results.cautions))
    for workload in results.workloads:
        parts += [f"## {_plain(workload)}", _prose(surroundings.about(record.plan.workloads[workload]))]
        found = findings(results, workload)
        rest = [f"- {_prose(found.rest)}: in the table."] if found.rest else []
        parts.append("\n".join([*map(_item, found.unfolded), *rest]))
        parts += [_markdown(each) for each in sections.of_workload(results, workload)]
    parts += ["## Cells", *map(_markdown, sections.overall(results)), "## Environment"]
    parts += [_markdown(each) for each in surroundings.environment(record)]
    given = (record.folder / "plan.yaml").read_text(encoding="utf-8").rstrip()
    fence = "`" * max(3, 1 + max((len(each) for each in re.findall("`+", given)), default=0))
    parts += ["## How to repeat it", _fenced(surroundings.commands(record), "```", "")]
    parts += [f"SHA-256 of the raw data: {record.fingerprint}", _fenced(given, fence, "yaml")]
    return "\n\n".join(each for each in parts if each) + "\n"


def _fenced(text: str, fence: str, language: str) -> str:
    return f"{fence}{language}\n{text}\n{fence}"


def _item(each: Finding) -> str:
    lines = [f"- {each.outcome}. **{_plain(each.about)}:** {_prose(each.text)}"]
    return "\n".join([*lines, *(f"  - But: {_prose(but)}." for but in each.but)])


def _markdown(table: Table) -> str:
    if not table.rows:
        return ""
    sides = [":--" if at == 0 or at in table.words else "--:" for at in range(len(table.head))]
    rows = [[_plain(each) for each in row] for row in (table.head, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], sides, *rows[1:])]
    return "\n\n".join(each for each in (f"### {_plain(table.title)}", "\n".join(lines), _prose(table.note)) if each)


def _prose(text: str) -> str:
    """Sentences, with their code as code."""
    parts = by_code(" ".join(text.split()))
    return "".join(f"`{part}`" if at % 2 else _escaped(part) for at, part in enumerate(parts))


def _plain(text: str) -> str:
    """As text that Markdown shows as it is, on one line."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def latex(results: Results) -> str:
    """Tables for a paper; they need the packages booktabs and graphicx."""
    told = []
    for workload in results.workloads:
        arms = [each for each in results.figures if each.workload == workload]
        comparisons = [each for each in results.comparisons if each.workload == workload]
        for table in (tables.figures(results, arms), tables.compared(results, comparisons), tables.failures(arms)):
            if table.rows:
                told.append(latex_tables.tabular(table, workload))
    return "% \\usepackage{booktabs,graphicx}\n\n" + "\n\n".join(told) + "\n"


def sheet(results: Results) -> str:
    """CSV: one row per arm, workload and metric, and one per comparison."""
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_arm_rows(results))
    writer.writerows(_comparison_rows(results))
    return target.getvalue()


def _arm_rows(results: Results) -> Iterator[dict[str, object]]:
    for each in results.figures:
        for name, found in each.metrics.items():
            row: dict[str, object] = {"kind": "arm", "workload": each.workload, "metric": name, "unit": found.unit}
            row |= {"arm": each.arm, "factors": _factors(each.levels), "blocks": len(found.values)}
            row |= {"samples": found.samples, "effective": found.effective}
            row |= {"requests": each.requests, "failed": each.failed} | _valued("value", found.typical)
            if found.percentiles is not None:
                for percentile in found.percentiles.__struct_fields__:
                    row |= _valued(percentile, getattr(found.percentiles, percentile))
            yield row


def _comparison_rows(results: Results) -> Iterator[dict[str, object]]:
    for each in results.comparisons:
        row: dict[str, object] = {"kind": "comparison", "workload": each.workload, "metric": each.metric}
        row |= {"unit": meaning_of(each.metric).unit, "arm": each.candidate, "baseline": each.baseline}
        row |= {"factors": _factors(each.levels), "blocks": results.blocks - len(each.excluded), "reason": each.reason}
        row |= _limits("difference", each.difference)
        if (found := each.comparison) is not None:
            for name in ("ratio", "difference"):
                row |= _limits(name, getattr(found, name))
            row |= {"p_different": found.p_different, "p_different_adjusted": found.adjusted_different}
            row |= {"p_equivalent": found.p_equivalent, "p_equivalent_adjusted": found.adjusted_equivalent}
        if (shared := each.shares) is not None:
            row |= _limits("difference", shared.difference)
            row |= {"p_different": shared.p_different, "p_different_adjusted": shared.adjusted_different}
            row |= {"p_equivalent": shared.p_equivalent, "p_equivalent_adjusted": shared.adjusted_equivalent}
        if each.verdict is not None:
            row["outcome"] = each.verdict.outcome.value
        yield row


def _factors(levels: dict[str, str]) -> str:
    return ";".join(f"{factor}={label}" for factor, label in levels.items())


def _valued(name: str, found: Valued | None) -> dict[str, object]:
    if found is None:
        return {}
    return {name: found.value} | _limits(name, found.interval)


def _limits(name: str, estimate: Estimate | None) -> dict[str, object]:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
