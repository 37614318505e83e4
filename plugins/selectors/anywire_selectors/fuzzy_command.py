"""``anywire fuzzy``: draw the rules of the selector `fuzzy`. What it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="fuzzy",
    help="Draw the sets and rules of `fuzzy` as text.",
    subcommand_metavar="",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def draw(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="YAML file with `sets` and `rules`. Default: the built-in ones.", show_default=False
        ),
    ] = None,
) -> None:
    """Draw the sets and rules of `fuzzy` as text. A file that is wrong is an error that
    says where."""
    from anywire_selectors.fuzzy_drawing import drawing
    from anywire_selectors.fuzzy_rules import FuzzyRules, read_rules

    typer.echo(drawing(read_rules(file) if file is not None else FuzzyRules()))
