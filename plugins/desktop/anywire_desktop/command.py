"""``anywire desktop-bridge``."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="desktop-bridge",
    help="Serve a desktop app: JSON-RPC on standard input and output.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
