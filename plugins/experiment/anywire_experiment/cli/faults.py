"""The command ``faults``: each fault by name, over each transport."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def faults(
    fault: Annotated[
        list[str] | None, typer.Option("--fault", metavar="NAME", help="Only this fault; may be repeated.")
    ] = None,
    transport: Annotated[
        list[str] | None,
        typer.Option("--transport", metavar="NAME", help="Only over this transport; may be repeated."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The record, a new folder. Default: records/faults.")
    ] = Path("records/faults"),
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="Engine of the agents. Default: synthetic, and openai where the engine's server fails.",
        ),
    ] = "",
    streams: Annotated[int, typer.Option("--streams", min=2, max=100, help="Streams that each fault meets.")] = 4,
    patience: Annotated[
        float, typer.Option("--patience", min=1.0, help="Seconds after which a client waits no longer for its stream.")
    ] = 60.0,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another value for a key of the system, as YAML; may be repeated."
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the faults and what clients must see of them.")] = False,
) -> None:
    """Try each fault over each transport. Tells what clients see of it. Exit status 1 if a cell fails."""
    from anywire_experiment.fault_table import pages, table
    from anywire_experiment.fault_table.setting import Setting
    from anywire_experiment.outcome import signed

    if listed:
        typer.echo(pages.catalogue())
        return
    try:
        made = table.run(
            fault or (),
            transport or (),
            out,
            setting=Setting(streams, engine, tuple(changes or ()), patience),
            invocation=sys.argv[1:],
            say=_say_at_once,
        )
    except table.Interrupted:
        typer.echo(f"interrupted: {out} has the cells that were carried out, and no table", err=True)
        raise typer.Exit(130) from None
    signed(out)
    typer.echo(f"{out}: {pages.summary(made.rows)}")
    if any(each.result == "FAIL" for each in made.rows):
        raise typer.Exit(1)


def _say_at_once(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()
