"""``anywire deliberate``."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="deliberate",
    help="Ask several agents one question, and rank their answers.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
