"""``anywire models``."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="models",
    help="List, start, stop and follow the models of an agent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
