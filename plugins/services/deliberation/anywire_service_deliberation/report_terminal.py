"""A deliberation as a report on a terminal, or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from anywire.deliberation_views import Whole
from anywire.printable import escaped
from anywire_service_deliberation import report_tables
from anywire_service_deliberation.report_tables import SYNTHESIS, dissent, facts

COLOURS = {"completed": "green", "degraded": "yellow", "failed": "red", "timed_out": "red", "cancelled": "yellow"}
SHOWN = ("Ranking", "Members", "Checks of the proposals", "Missing, and tried again", "Too late to count")
"""Tables that are shown; the rest is in a file's report and in JSON."""
PIPE_WIDTH = 400
"""In a pipe nothing is cut to the width of a screen."""


def print_report(state: Whole) -> None:
    """Print it on standard output. Texts are shown as they are: no markup, and escaped where a terminal obeys them."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, width=width)
    for part in report(state):
        console.print(part, soft_wrap=isinstance(part, Text))


def report(state: Whole) -> Iterator[RenderableType]:
    colour = COLOURS.get(state.status, "")
    if state.winner:
        yield heading(f"Answer: the proposal of {state.winner}")
        yield shown(state.answer)
    if state.synthesis:
        yield heading("Synthesis")
        yield Text(SYNTHESIS, "dim")
        yield shown(state.synthesis)
    for table in report_tables.tables(state):
        if table.title in SHOWN:
            yield heading(table.title)
            yield grid(table)
    yield heading("Deliberation")
    for name, text in facts(state):
        yield Text.assemble((f"{name}: ", "dim"), (escaped(text), colour if name in ("status", "reason") else ""))
    if told := dissent(state):
        yield Text.assemble(("dissent: ", "dim"), escaped(told))
    yield Text.assemble(("id: ", "dim"), escaped(state.id))


def heading(text: str) -> Text:
    return Text(f"\n{escaped(text)}", "bold")


def shown(text: str) -> Text:
    return Text(escaped(text, keep="\n\t"))


def grid(table: report_tables.Table) -> Table:
    made = Table(*table.columns, box=None, header_style="dim", padding=(0, 2, 0, 0))
    for row in table.rows:
        made.add_row(*(Text(escaped(cell)) for cell in row))
    return made
