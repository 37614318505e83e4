"""``anywire agents``, ``plugins`` and ``config``: what runs, what is installed, what is set."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli import options

if TYPE_CHECKING:
    from anywire.plugins import PluginKind, Plugins
    from anywire.roles.stop import Stop

_ALARMING = {"failed": "red", "draining": "yellow", "starting": "yellow", "held": "yellow", "queued": "yellow"}


def agents(
    as_json: options.Json = False,
    url: options.Url = None,
    host: options.Host = None,
    port: options.Port = None,
    transports: options.Over = None,
    dds_domain: options.DdsDomain = None,
    file: options.File = None,
    settings: options.Set = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """List the agents of a running orchestrator."""
    settled = {"file": file, "settings": settings, "plugin_files": plugin_files, "log_level": log_level}
    found = _listed("agents", url, host, port, transports, dds_domain, settled)
    if as_json:
        _print_json(found)
        return
    rows = []
    for each in found:
        state = _coloured(each["state"], _ALARMING.get(each["state"], "green"))
        load = each["load"]
        rows.append(
            (
                each["id"],
                str(each["pid"]),
                each["host"],
                each["transport"],
                ", ".join(each["models"]),
                each["engine"],
                str(each["slots"]),
                f"{state} {each['detail']}".rstrip(),
                f"{load['active']} active, {load['in_flight']} ours",
            )
        )
    _print_table(("id", "pid", "host", "transport", "model", "engine", "slots", "state", "load"), rows)
    if not found:
        typer.echo("No agent has joined. Start one with `anywire agent` on the same transport.", err=True)


def tasks(
    as_json: options.Json = False,
    url: options.Url = None,
    host: options.Host = None,
    port: options.Port = None,
    transports: options.Over = None,
    dds_domain: options.DdsDomain = None,
    file: options.File = None,
    settings: options.Set = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """List the tasks of a running orchestrator that have not ended, oldest first."""
    settled = {"file": file, "settings": settings, "plugin_files": plugin_files, "log_level": log_level}
    found = _listed("tasks", url, host, port, transports, dds_domain, settled)
    if as_json:
        _print_json(found)
        return
    rows = []
    for each in found:
        place = _coloured(each["place"], _ALARMING.get(each["place"], "green"))
        rows.append(
            (
                each["id"],
                f"{place} {each['why']}".rstrip(),
                each["agent_id"],
                each["transport"],
                each["model"],
                f"{each['age_ms'] / 1e3:.1f}",
                str(each["attempt"]),
                str(each["chunks"]),
                str(each["priority"]),
                each["tenant"],
            )
        )
    columns = ("id", "place", "agent", "transport", "model", "seconds", "attempt", "chunks", "priority", "tenant")
    _print_table(columns, rows)


def _listed(
    what: str,
    url: str | None,
    host: str | None,
    port: int | None,
    transports: list[str] | None,
    dds_domain: int | None,
    settled: dict[str, Any],
) -> list[dict[str, Any]]:
    """What a running orchestrator has of it now."""
    from anywire.cli.fleet_source import fleet_place
    from anywire.roles.stop import run

    place = fleet_place(url, host, port, transports, dds_domain, settled)

    async def ask() -> list[dict[str, Any]]:
        async with place.open() as source:
            return await source.list(what)

    async def role(stop: Stop) -> list[dict[str, Any]]:
        return await stop.unless(ask())

    found = run(role)
    if found is None:
        raise typer.Exit(1)
    return found


@options.takes()
def plugins(given: options.Given, as_json: options.Json = False) -> None:
    """List the plugins installed, and what each transport can do."""
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
    """Print the configuration in force as YAML: flags over environment over file over defaults; secrets masked."""
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


def _coloured(text: str, colour: str) -> str:
    from rich.markup import escape

    return f"[{colour}]{escape(text)}[/]"


def _print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    # In a pipe nothing is cut to the width of a screen.
    Console(highlight=False, width=None if sys.stdout.isatty() else 400).print(table)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
