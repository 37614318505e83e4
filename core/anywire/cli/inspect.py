"""``anywire tasks``, ``plugins`` and ``config``: what runs, what is installed, what is set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from anywire.asked_fleet import INTERRUPTED
from anywire.cli import options
from anywire.cli.tables import print_json, print_table
from anywire.printable import escaped

if TYPE_CHECKING:
    from rich.text import Text

    from anywire.cli.fleet_source import Source
    from anywire.cli.tables import Row
    from anywire.plugins import PluginKind, Plugins
    from anywire.roles.stop import Stop

Answer = TypeVar("Answer")

ALARMING = {
    "failed": "red",
    "quarantined": "red",
    "breaker open": "red",
    "breaker half open": "yellow",
    "isolated": "yellow",
    "drained": "yellow",
    "draining": "yellow",
    "starting": "yellow",
    "slow start": "yellow",
    "held": "yellow",
    "queued": "yellow",
}


@options.asks
def tasks(given: options.Given, as_json: options.Json = False) -> None:
    """List the tasks of a running orchestrator. Those that have not ended, oldest first."""
    columns = ("id", "place", "agent", "transport", "model", "seconds", "attempt", "chunks", "priority", "tenant")
    found, where = asked(given, lambda source: source.list("tasks"))
    if as_json:
        print_json(found)
    else:
        show_list(found, where, columns, _task_row)


def _task_row(each: dict[str, Any]) -> Row:
    return (
        each["id"],
        coloured(each["place"], ALARMING.get(each["place"], "green"), each["why"]),
        each["agent_id"],
        each["transport"],
        each["model"],
        f"{each['age_ms'] / 1e3:.1f}",
        str(each["attempt"]),
        str(each["chunks"]),
        str(each["priority"]),
        each["tenant"],
    )


def asked(given: options.Given, ask: Callable[[Source], Awaitable[Answer]]) -> tuple[Answer, str]:
    """What ``ask`` learns from the running orchestrator that the options name, and where that is. Raises `typer.Exit`
    when it is interrupted."""
    from anywire.cli.fleet_source import fleet_place
    from anywire.roles.stop import run

    place = fleet_place(given)

    async def ask_there() -> Answer:
        async with place.open() as source:
            return await ask(source)

    async def role(stop: Stop) -> tuple[Answer]:
        return (await stop.unless(ask_there()),)

    found = run(role)
    if found is None:
        raise typer.Exit(INTERRUPTED)
    return found[0], place.name


def show_list(
    found: list[dict[str, Any]], where: str, columns: tuple[str, ...], row: Callable[[dict[str, Any]], Row]
) -> None:
    """Print what the orchestrator ``where`` has told as a table. Raises `ServerError` for what is no such list."""
    from anywire.cli import stream

    try:
        rows = [row(each) for each in found]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise stream.no_answer(where) from error
    print_table(columns, rows)


@options.takes()
def plugins(given: options.Given, as_json: options.Json = False) -> None:
    """List the installed plugins and what each can do."""
    from anywire.plugins import KINDS

    _, known = given.settle(quiet=True)
    found = [_described(known, kind, name) for kind in KINDS for name in known.names(kind)]
    if as_json:
        print_json(found)
        return
    rows = []
    for each in found:
        told = ", ".join(f"{key} {_short(value)}" for key, value in each["capabilities"].items())
        what = coloured(each["error"], "red") if each["error"] else told
        rows.append((each["kind"], each["name"], each["distribution"] or "(from --plugin)", what))
    print_table(("kind", "name", "distribution", "capabilities"), rows)


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
def config(given: options.Given) -> None:
    """Print the configuration in force as YAML. Flags win over environment, file and defaults. Secrets are masked."""
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


def coloured(text: str, colour: str, more: str = "") -> Text:
    """A cell with ``text`` in colour, and ``more`` behind it."""
    from rich.text import Text

    return Text.assemble((escaped(text), colour), f" {escaped(more)}" if more else "")
