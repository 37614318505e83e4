"""The command ``anywire capture``. What it needs beyond its options is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anywire.asked_fleet import GivenServer, asks_server, until_interrupted

app = typer.Typer(
    name="capture",
    help="Make a plan of what a running fleet is asked. It has times, sizes, models and sessions, and no text.",
    subcommand_metavar="",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

LONGEST = 86_400.0
MOST_REQUESTS = 1_000_000


@app.callback(invoke_without_command=True)
@asks_server
def capture(
    given: GivenServer,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The plan to write; its trace lies beside it, as .csv.")
    ],
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=LONGEST, help="How long requests are taken in.")
    ] = 60.0,
    requests: Annotated[
        int, typer.Option("--requests", metavar="N", min=1, max=MOST_REQUESTS, help="End after so many requests.")
    ] = 100_000,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, max=LONGEST, help="Seconds to wait then for answers that are under way."),
    ] = 30.0,
) -> None:
    """Make a plan of what a running fleet is asked. It has times, sizes, models and sessions, and no text. Ctrl-C ends
    it early, and what was taken in until then is written."""
    from anywire_experiment.capture import listening, taken, written

    def began() -> None:
        typer.echo(f"taking in requests for {seconds:g} s; Ctrl-C ends it early", err=True)

    written.check(out)
    found = taken.Taken(requests)
    with until_interrupted(True):
        given.ask(lambda client: listening.listen(client, found, seconds, wait, began))
    for path in written.write(found, out):
        typer.echo(path)
    for line in found.told():
        typer.echo(line, err=True)
