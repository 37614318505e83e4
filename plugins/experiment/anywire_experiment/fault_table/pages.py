"""The fault table for people: lines of a terminal, the list of the catalogue, and a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anywire_experiment.fault_table.setting import Setting
from anywire_experiment.fault_table.verdict import HELD_UP, Row
from anywire_experiment.faults.catalogue import FAULTS, Fault
from anywire_experiment.record.environment import Environment

_NONE = "–"
HEAD = ("fault", "transport", "result", "noticed", "recovered", "lost", "doubled", "what the clients saw")
_WIDTHS = (26, 10, 7, 10, 10, 5, 8)


def head() -> str:
    """The head of the table on a terminal."""
    return _line(HEAD)


def line(row: Row) -> str:
    """A row of it; what is not as it must be stands below."""
    told = " ".join("; ".join(filter(None, (row.saw, *row.why))).split())
    return _line((row.fault, row.transport, row.result, *_figures(row), told))


def summary(rows: Sequence[Row]) -> str:
    counts = {result: sum(each.result == result for each in rows) for result in ("pass", "FAIL", "n/a")}
    return f"{counts['pass']} cells pass, {counts['FAIL']} fail, {counts['n/a']} do not exist here"


def catalogue(faults: Sequence[Fault] = FAULTS) -> str:
    """Every fault with what a client must see."""
    return "\n".join(f"{each.name:<{_WIDTHS[0]}} {each.meets} {each.does}\n{'':27}{each.must_see}" for each in faults)


def markdown(rows: Sequence[Row], setting: Setting, where: Environment) -> str:
    transports = list(dict.fromkeys(each.transport for each in rows))
    faults = [each for each in FAULTS if any(row.fault == each.name for row in rows)]
    parts = [
        "# What clients see of faults",
        f"**{summary(rows)}.** Each cell is a system started afresh: an orchestrator, two agents and {setting.streams} "
        "streams at once. What was noticed and recovered is in milliseconds from the fault: until the pipeline noticed "
        "anything, and until the last stream that it held up went on or ended. A stream was held up when it paused for "
        f"{HELD_UP} times the longest pause without the fault. Tokens are lost when they are missing before others "
        "that came.",
        *([f"The agents' engine is `{setting.engine}`."] if setting.engine else []),
        *([f"Settings: {', '.join(f'`{each}`' for each in setting.changes)}."] if setting.changes else []),
        _overview(faults, transports, rows),
    ]
    for fault in faults:
        parts += _section(fault, [row for row in rows if row.fault == fault.name])
    parts += ["## Where", "\n".join(_environment(where))]
    return "\n\n".join(parts) + "\n"


def _overview(faults: Sequence[Fault], transports: Sequence[str], rows: Sequence[Row]) -> str:
    results = {(each.fault, each.transport): each.result for each in rows}
    lines = [
        _row(("fault", *transports)),
        _row([":--"] * (1 + len(transports))),
        *(
            _row((f"[{each.name}](#{each.name})", *(results.get((each.name, name), _NONE) for name in transports)))
            for each in faults
        ),
    ]
    return "\n".join(lines)


def _section(fault: Fault, rows: Sequence[Row]) -> Iterator[str]:
    yield f"## {fault.name}"
    yield f"{fault.meets} {fault.does} *How:* {fault.done} *Undone:* {fault.undone}"
    yield f"*The client must see:* {fault.must_see}"
    here = [each for each in rows if each.result != "n/a"]
    if here:
        table = [
            _row(("transport", "result", "what the clients saw", "noticed", "recovered", "lost", "doubled")),
            _row((":--", ":--", ":--", "--:", "--:", "--:", "--:")),
            *(_row((each.transport, each.result, each.saw, *_figures(each))) for each in here),
        ]
        yield "\n".join(table)
    because = [f"- {each.transport}: {each.result}, {_plain('; '.join(each.why))}." for each in rows if each.why]
    if because:
        yield "\n".join(because)


def _environment(where: Environment) -> Iterator[str]:
    yield f"- {where.cores} cores, {where.cpu_model}; {where.kernel}; {where.python}"
    yield f"- load average before: {', '.join(map(str, where.load_average))}"
    yield f"- commit {where.commit[:12] or 'not known'}, changes: {where.dirty or 'not known'}"
    yield f"- `anywire {' '.join(where.invocation)}`"


def _figures(row: Row) -> tuple[str, str, str, str]:
    if not row.saw:
        return (_NONE, _NONE, _NONE, _NONE)
    return (_ms(row.noticed_ms), _ms(row.recovered_ms), str(row.lost), str(row.doubled))


def _ms(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _line(fields: Sequence[str]) -> str:
    cells = [f"{field:<{width}}" for field, width in zip(fields, _WIDTHS, strict=False)]
    return " ".join([*cells, *fields[len(_WIDTHS) :]]).rstrip()


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
