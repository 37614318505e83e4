"""``anywire keys``: new keys for a transport whose ends know each other by keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anywire.cli import options
from anywire.errors import ConfigError


@options.takes()
def keys(
    given: options.Given,
    transport: Annotated[str, typer.Argument(help="Transport to make keys for, such as zeromq.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the files.")] = Path("keys"),
) -> None:
    """Make keys for a transport and print where they go."""
    from anywire.transport import MakesKeys

    _, known = given.settle(quiet=True)
    found = known.load("transports", transport)
    if not isinstance(found, MakesKeys):
        raise ConfigError(f"the transport {transport} has no keys of its own to make; see its settings for what it has")
    typer.echo(found.make_keys(out), nl=False)
