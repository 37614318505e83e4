"""``anywire mcp``."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="mcp",
    help="List, start and stop the MCP servers of an agent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
