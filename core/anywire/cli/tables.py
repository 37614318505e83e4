"""What commands print on standard output: tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from anywire.printable import escaped

if TYPE_CHECKING:
    from rich.text import Text

    Row = tuple[str | Text, ...]


def print_table(columns: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Print a table. Texts are shown as they are: no markup, and escaped where a terminal would obey them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(escaped(cell)) if isinstance(cell, str) else cell for cell in row))
    # In a pipe nothing is cut to the width of a screen.
    Console(highlight=False, width=None if sys.stdout.isatty() else 400).print(table)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
