"""The option of commands that print a log, by which they begin where an earlier one has ended."""

from __future__ import annotations

from typing import Annotated

import typer

After = Annotated[
    str,
    typer.Option(
        "--after",
        metavar="ID",
        help="Begin after the line of this id, as `--json` tells it, in place of the newest lines.",
        show_default=False,
    ),
]
