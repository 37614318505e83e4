"""``anywire audit``: verify a log, show what is in it.

What a command needs beyond its options is imported when it runs, so that ``anywire --help`` stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="audit",
    help="Verify and show the audit log. The service `audit` of an orchestrator writes it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="FOLDER", help="Folder of the log. Default: that of the fleet.", show_default=False),
]
Fleet = Annotated[str, typer.Option("--fleet", metavar="NAME", help="Fleet whose log it is.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(
    folder: Folder = None,
    fleet: Fleet = "default",
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Key of the hashes: the setting `key_file`.")
    ] = None,
    heads: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            metavar="HASH",
            help="Hash that the log must have, as the orchestrator's log tells it. Finds an end that was cut off. "
            "Repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify that no entry was changed, removed, swapped or added. Exit status 1 names the first line that is wrong."""
    from anywire_service_audit.folder import read_key
    from anywire_service_audit.shown import verdict_json, verdict_text
    from anywire_service_audit.verify import verify_below

    verdicts = verify_below(
        _folder(folder, fleet), key=read_key(key) if key is not None else b"", heads=frozenset(heads or ())
    )
    for verdict in verdicts:
        typer.echo(verdict_json(verdict) if as_json else verdict_text(verdict))
    if any(verdict.fault is not None for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def show(
    folder: Folder = None,
    fleet: Fleet = "default",
    action: Annotated[
        str, typer.Option("--action", metavar="NAME", help="Entries of this action; `command.*` for all that begin so.")
    ] = "*",
    actor: Annotated[str, typer.Option("--actor", metavar="ID", help="Entries of this caller; `*` as above.")] = "*",
    tenant: Annotated[str, typer.Option("--tenant", help="Entries of this tenant's callers; `*` as above.")] = "*",
    target: Annotated[str, typer.Option("--target", help="Entries about this; `*` as above.")] = "*",
    outcome: Annotated[str, typer.Option("--outcome", help="Entries with this outcome; `*` as above.")] = "*",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="From this time on: 2026-01-31T12:00.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Before this time.")] = "",
    last: Annotated[int, typer.Option("--last", "-n", min=0, metavar="N", help="Only the last N; 0 for all.")] = 0,
    as_json: Json = False,
) -> None:
    """Show entries, the oldest first. It does not verify them."""
    from anywire_service_audit.shown import Filter, entries, record_json, record_text, time_of

    wanted = Filter(action, actor, tenant, target, outcome, time_of(since, "--since"), time_of(until, "--until"))
    for record in entries(_folder(folder, fleet), wanted, last):
        typer.echo(record_json(record) if as_json else record_text(record))


def _folder(folder: Path | None, fleet: str) -> Path:
    from anywire.files.state_folders import state_folder

    return folder if folder is not None else state_folder(fleet) / "audit"
