"""Two records side by side: whether a repetition agrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.results import FORMAT, ComparisonFigures, Results
from anywire_experiment.analysis.wording import meaning_of
from anywire_experiment.record.manifest import RESULTS
from anywire_experiment.record.storage import RecordError
from anywire_experiment.report.numbers import NONE, interval, number, percent_change, valued
from anywire_experiment.report.tables import Table
from anywire_experiment.report.templates import rendered


class _Form(msgspec.Struct):
    """Of the results, whatever else is in them."""

    format: int


def told(
    first: Path, second: Path, target: Path | None, notes: Sequence[str], shown: Sequence[Path] | None = None
) -> str:
    one, other = _results(first), _results(second)
    made = [each for each in (_verdicts(one, other), _figures(one, other)) if each.rows]
    names = [
        (name, f"{path} ({results.name})")
        for name, path, results in zip("AB", shown or (first, second), (one, other), strict=True)
    ]
    agreement, said = _agreement(one, other), [*notes, *_apart(one, other)]
    lines = [*(": ".join(each) for each in names), "", *said, agreement]
    text = "\n".join([*lines, *(f"\n{_as_text(each)}" for each in made)])
    if target is not None:
        page = f"```\n{text}\n```\n"
        if target.suffix == ".html":
            page = rendered("beside.html.j2", agreement=agreement, names=names, notes=said, tables=made)
        target.write_text(page, encoding="utf-8")
    return text


def _results(folder: Path) -> Results:
    path = folder / RESULTS
    if not path.exists():
        return analyse(folder)
    try:
        content = path.read_bytes()
        if msgspec.json.decode(content, type=_Form).format != FORMAT:
            return analyse(folder)
        return msgspec.json.decode(content, type=Results)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(
            f"{path} cannot be read: {error}; `anywire experiment report {folder}` makes it anew"
        ) from error


def _apart(one: Results, other: Results) -> Iterator[str]:
    """What is not comparable, before what is."""
    for what in ("statistic", "margin", "confidence", "baseline", "blocks"):
        before, after = getattr(one, what), getattr(other, what)
        if before != after:
            yield f"Not the same {what}: A {before}, B {after}."
    for what in ("arms", "workloads"):
        before, after = getattr(one, what), getattr(other, what)
        for name, missing in (
            ("A", [each for each in before if each not in after]),
            ("B", [each for each in after if each not in before]),
        ):
            if missing:
                yield f"Only in {name}: {what} {', '.join(missing)}."
    for name, results in (("A", one), ("B", other)):
        for caution in results.cautions:
            yield f"{name}: {caution}."


def _pairs(one: Results, other: Results) -> list[tuple[ComparisonFigures, ComparisonFigures]]:
    def key(each: ComparisonFigures) -> tuple[str, str, str, str]:
        return each.workload, each.metric, each.baseline, each.candidate

    known = {key(each): each for each in other.comparisons}
    return [(each, known[key(each)]) for each in one.comparisons if key(each) in known]


def _agreement(one: Results, other: Results) -> str:
    judged = [(a.verdict, b.verdict) for a, b in _pairs(one, other) if a.verdict and b.verdict]
    if not judged:
        return "No comparison was judged in both."
    same = sum(a.outcome == b.outcome for a, b in judged)
    return f"{same} of {len(judged)} verdicts are the same in both."


def _verdicts(one: Results, other: Results) -> Table:
    rows = []
    for a, b in _pairs(one, other):
        if a.verdict is None or b.verdict is None:
            continue
        outcome = "yes" if a.verdict.outcome == b.verdict.outcome else "NO"
        rows.append(
            [
                f"{a.workload}, {meaning_of(a.metric).title}",
                f"{a.candidate} / {a.baseline}",
                _change(a),
                _change(b),
                a.verdict.words,
                b.verdict.words,
                outcome,
            ]
        )
    head = ["Comparison", "Arms", "Change in A", "Change in B", "Verdict in A", "Verdict in B", "Agree"]
    return Table("Verdicts", head, rows, words=frozenset({1, 4, 5, 6}))


def _change(each: ComparisonFigures) -> str:
    if each.comparison is not None:
        return percent_change(each.comparison.ratio)
    return f"{interval(each.shares.difference, 100)} points" if each.shares is not None else NONE


def _figures(one: Results, other: Results) -> Table:
    known = {(each.workload, each.arm, name): found for each in other.figures for name, found in each.metrics.items()}
    rows = []
    for each in one.figures:
        for name, a in each.metrics.items():
            b = known.get((each.workload, each.arm, name))
            if b is None or a.typical is None or b.typical is None:
                continue
            before, after = a.typical, b.typical
            overlap = NONE
            if (one_is := before.interval) and (other_is := after.interval):
                overlap = "yes" if one_is.low <= other_is.high and other_is.low <= one_is.high else "NO"
            ratio = number(after.value / before.value) if before.value else NONE
            row = [f"{each.workload}, {meaning_of(name).title}", each.arm, a.unit]
            rows.append([*row, valued(before), valued(after), ratio, overlap])
    head = ["Figure", "Arm", "Unit", "A (interval)", "B (interval)", "B/A", "Overlap"]
    return Table("Figures", head, rows, words=frozenset({1, 2, 6}))


def _as_text(table: Table) -> str:
    rows = [table.head, *table.rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(table.head))]

    def line(row: list[str]) -> str:
        cells = (
            each.ljust(width) if at == 0 or at in table.words else each.rjust(width)
            for at, (each, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(
        [table.title, line(table.head), "  ".join("-" * width for width in widths), *map(line, table.rows)]
    )
