"""``anywire agents``, ``plugins`` and ``config``: what runs, what is installed, what is set."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli import options

if TYPE_CHECKING:
    from anywire.cli.eventloop import Stop
    from anywire.plugins import PluginKind, Plugins

_ALARMING = {"failed": "red", "draining": "yellow", "starting": "yellow"}


def agents(
    as_json: options.Json = False,
    url: options.Url = None,
    file: options.File = None,
    host: options.Host = None,
    port: options.Port = None,
) -> None:
    """List the agents of a running server."""
    from anywire.cli import eventloop, stream

    server = options.base_url(url, file, host, port)

    async def role(stop: Stop) -> list[dict[str, Any]]:
        async with stream.client(server) as client:
            found: list[dict[str, Any]] = (await stop.unless(stream.get(client, "/api/v1/agents")))["data"]
            return found

    found = eventloop.run(role)
    if found is None:
        raise typer.Exit(1)
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


def plugins(as_json: options.Json = False, file: options.File = None, plugin_files: options.PluginFiles = None) -> None:
    """List the plugins installed, and what each transport can do."""
    from anywire.plugins import KINDS

    _, known = options.settle(file, plugin_files=plugin_files, quiet=True)
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


def config(
    file: options.File = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the YAML file.")] = False,
    host: options.Host = None,
    port: options.Port = None,
    engine: options.Engine = None,
    model: options.EngineModel = None,
    slots: options.Slots = None,
    agent_id: options.AgentId = None,
    transports: options.Transports = None,
    dds_domain: options.DdsDomain = None,
    scheduler: options.Scheduler = None,
    selector: options.Selector = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """Print the configuration in force as YAML: flags over environment over file over defaults; secrets masked."""
    if schema:
        from anywire.config import Config

        _print_json(Config.model_json_schema())
        return
    import yaml

    from anywire import assembly

    settled, known = options.settle(
        file,
        host=host,
        port=port,
        engine=engine,
        model=model,
        slots=slots,
        agent_id=agent_id,
        transports=transports,
        dds_domain=dds_domain,
        scheduler=scheduler,
        selector=selector,
        plugin_files=plugin_files,
        log_level=log_level,
        quiet=True,
    )
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
