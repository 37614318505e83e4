"""``anywire agents``, ``plugins`` and ``config``: what runs, what is installed, what is set."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli import options
from anywire.errors import ConfigError
from anywire.printable import escaped

if TYPE_CHECKING:
    from rich.text import Text

    from anywire.plugins import PluginKind, Plugins
    from anywire.roles.stop import Stop

    Row = tuple[str | Text, ...]

_ALARMING = {"failed": "red", "draining": "yellow", "starting": "yellow", "held": "yellow", "queued": "yellow"}


@options.asks
def agents(given: options.Given, as_json: options.Json = False) -> None:
    """List the agents of a running orchestrator."""
    columns = ("id", "pid", "host", "transport", "model", "engine", "slots", "state", "load")
    if not _show("agents", given, as_json, columns, _agent_row):
        typer.echo("No agent has joined. Start one with `anywire agent` on the same transport.", err=True)


@options.asks
def tasks(given: options.Given, as_json: options.Json = False) -> None:
    """List the tasks of a running orchestrator. Those that have not ended, oldest first."""
    columns = ("id", "place", "agent", "transport", "model", "seconds", "attempt", "chunks", "priority", "tenant")
    _show("tasks", given, as_json, columns, _task_row)


def _agent_row(each: dict[str, Any]) -> Row:
    load = each["load"]
    return (
        each["id"],
        str(each["pid"]),
        each["host"],
        each["transport"],
        ", ".join(each["models"]),
        each["engine"],
        str(each["slots"]),
        _coloured(each["state"], _ALARMING.get(each["state"], "green"), each["detail"]),
        f"{load['active']} active, {load['in_flight']} ours",
    )


def _task_row(each: dict[str, Any]) -> Row:
    return (
        each["id"],
        _coloured(each["place"], _ALARMING.get(each["place"], "green"), each["why"]),
        each["agent_id"],
        each["transport"],
        each["model"],
        f"{each['age_ms'] / 1e3:.1f}",
        str(each["attempt"]),
        str(each["chunks"]),
        str(each["priority"]),
        each["tenant"],
    )


def _show(
    what: str, given: options.Given, as_json: bool, columns: tuple[str, ...], row: Callable[[dict[str, Any]], Row]
) -> bool:
    """Print what a running orchestrator has of it now; False when that is nothing. Raises `ServerError` for what is no
    such list."""
    from anywire.cli import stream
    from anywire.cli.fleet_source import fleet_place
    from anywire.roles.stop import run

    place = fleet_place(given)

    async def ask() -> list[dict[str, Any]]:
        async with place.open() as source:
            return await source.list(what)

    async def role(stop: Stop) -> list[dict[str, Any]]:
        return await stop.unless(ask())

    found = run(role)
    if found is None:
        raise typer.Exit(options.INTERRUPTED)
    if as_json:
        _print_json(found)
        return True
    try:
        rows = [row(each) for each in found]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise stream.no_answer(place.name) from error
    _print_table(columns, rows)
    return bool(rows)


def invite(fleet: options.Fleet = None) -> None:
    """Print the code by which other machines join. It is of a fleet that runs here with --lan, and a secret."""
    from anywire.cli.fleet_records import running_fleets

    found = [each for each in running_fleets() if fleet in (None, each.fleet)]
    open_ones = [each for each in found if each.invite]
    if not open_ones:
        which = f"the fleet {found[0].fleet}" if found else f"no fleet {fleet or ''}".rstrip()
        state = "is open to this machine alone" if found else "of yours runs on this machine"
        raise ConfigError(f"{which} {state}: start it with `anywire serve --lan --fleet NAME`, or `anywire up`")
    typer.echo(open_ones[0].invite)


@options.takes()
def plugins(given: options.Given, as_json: options.Json = False) -> None:
    """List the installed plugins and what each can do."""
    from anywire.plugins import KINDS

    _, known = given.settle(quiet=True)
    found = [_described(known, kind, name) for kind in KINDS for name in known.names(kind)]
    if as_json:
        _print_json(found)
        return
    rows = []
    for each in found:
        told = ", ".join(f"{key} {_short(value)}" for key, value in each["capabilities"].items())
        what = _coloured(each["error"], "red") if each["error"] else told
        rows.append((each["kind"], each["name"], each["distribution"] or "(from --plugin)", what))
    _print_table(("kind", "name", "distribution", "capabilities"), rows)


@options.takes(
    "host",
    "port",
    "engine",
    "model",
    "slots",
    "agent_id",
    "transports",
    "dds_domain",
    "scheduler",
    "selector",
)
def config(
    given: options.Given,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the YAML file.")] = False,
) -> None:
    """Print the configuration in force as YAML. Flags win over environment, file and defaults. Secrets are masked."""
    if schema:
        from anywire.config import Config

        _print_json(Config.model_json_schema())
        return
    import yaml

    from anywire.roles import assembly

    settled, known = given.settle(quiet=True)
    tree, faults = assembly.effective(settled, known)
    typer.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), nl=False)
    for fault in faults:
        typer.echo(f"warning: {fault}", err=True)


def _described(known: Plugins, kind: PluginKind, name: str) -> dict[str, Any]:
    import msgspec

    from anywire.errors import PluginError

    told: dict[str, Any] = {}
    fault = ""
    try:
        declared = getattr(known.load(kind, name), "capabilities", None)
        if isinstance(declared, msgspec.Struct):
            told = msgspec.to_builtins(declared)
        elif declared:
            told = {"offers": list(declared)}
    except PluginError as error:
        fault = str(error)
    return {
        "kind": kind.removesuffix("s"),
        "name": name,
        "distribution": known.distribution(kind, name),
        "capabilities": told,
        "error": fault,
    }


def _short(value: object) -> str:
    match value:
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(str, value))
    return str(value)


def _coloured(text: str, colour: str, more: str = "") -> Text:
    """A cell with ``text`` in colour, and ``more`` behind it."""
    from rich.text import Text

    return Text.assemble((escaped(text), colour), f" {escaped(more)}" if more else "")


def _print_table(columns: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Print a table. Texts are shown as they are: no markup, and escaped where a terminal would obey them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(escaped(cell)) if isinstance(cell, str) else cell for cell in row))
    # In a pipe nothing is cut to the width of a screen.
    Console(highlight=False, width=None if sys.stdout.isatty() else 400).print(table)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
