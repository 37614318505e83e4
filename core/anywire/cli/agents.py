"""``anywire agents``: which agents there are, and which agents and orchestrators are let in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli import options
from anywire.cli.agent_state import agent_state, why
from anywire.cli.inspect import ALARMING, asked, coloured, show_list
from anywire.cli.tables import print_json, print_table
from anywire.files.private_files import config_folder
from anywire.printable import printable

if TYPE_CHECKING:
    from rich.text import Text

    from anywire.cli.fleet_source import Item, Source
    from anywire.cli.tables import Row
    from anywire.config import Config
    from anywire.identities.admitted import Admitted, AdmittedEnd

MAX_ID_CHARS = 200

app = typer.Typer(
    name="agents",
    help="List the agents that have joined, or say who is let in.",
    rich_markup_mode=None,
    invoke_without_command=True,
)

AdmittedFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="File with those that are let in. Default: `identity.admitted` of the configuration, else that of the "
        "newest of your orchestrators that runs here, else anywire/admitted.json in your configuration folder.",
        show_default=False,
    ),
]
Who = Annotated[
    str,
    typer.Argument(
        metavar="FINGERPRINT",
        help="Fingerprint of its key, as its log and this machine's say it, or the public key.",
        show_default=False,
    ),
]


@app.callback()
@options.asks
def agents(ctx: typer.Context, given: options.Given, as_json: options.Json = False) -> None:
    """List the agents that have joined, or say who is let in."""
    if ctx.invoked_subcommand is not None:
        return

    async def ask(source: Source) -> tuple[list[Item], list[Item]]:
        found = await source.list("agents")
        waiting = [] if as_json else (await source.stats()).get("ends_waiting", [])
        return found, waiting if isinstance(waiting, list) else []

    (found, waiting), where = asked(given, ask)
    if as_json:
        print_json(found)
        return
    columns = ("id", "pid", "host", "transport", "model", "engine", "slots", "state", "load")
    show_list(found, where, columns, _agent_row)
    if waiting:
        typer.echo("\nNot let in:")
        show_list(waiting, where, ("id", "host", "kind", "fingerprint", "why"), _waiting_row)
    if not found:
        what = "Let one in with `anywire agents admit`" if waiting else "Start one with `anywire agent`"
        typer.echo(f"No agent has joined. {what}{'.' if waiting else ' on the same transport.'}", err=True)


@app.command()
@options.takes()
def admit(
    given: options.Given,
    who: Who,
    admitted_file: AdmittedFile = None,
    end_ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id", metavar="ID", help="Id that it may have, and no other. Repeatable. Default: any that is free."
        ),
    ] = None,
    role: Annotated[
        str,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="agent: may join as an agent; orchestrator: may also send tasks to agents.",
        ),
    ] = "agent",
) -> None:
    """Let an agent or orchestrator in. It counts at once where `identity.admitted` names the file."""
    from anywire.identities.admitted import END_ROLES, AdmittedEnd, change_admitted, read_fingerprint

    if role not in END_ROLES:
        raise typer.BadParameter(f"expected one of {', '.join(END_ROLES)}, found {role!r}", param_hint="--role")
    for each in end_ids or ():
        if not 0 < len(each) <= MAX_ID_CHARS or not each.isprintable():
            raise typer.BadParameter(f"expected up to {MAX_ID_CHARS} printable characters", param_hint="--id")
    config, _ = given.settle(quiet=True)
    path, print_ = _path(admitted_file, config), read_fingerprint(who)
    ids, now = tuple(dict.fromkeys(end_ids or ())), time.time()

    def change(admitted: Admitted) -> Admitted:
        before = admitted.ends.get(print_)
        kept = before.ids if before is not None and not before.fixed and not ids else ids
        return admitted.with_end(AdmittedEnd(print_, role, kept, bool(ids), now))

    change_admitted(path, change)
    named = config.identity.admitted
    is_named = path.resolve() in (named and named.resolve(), _of_running())
    more = "" if is_named else f"; it counts with `identity.admitted: {path}`"
    typer.echo(f"admitted {print_} as {role} in {path}{more}", err=True)


@app.command()
@options.takes()
def revoke(given: options.Given, who: Who, admitted_file: AdmittedFile = None) -> None:
    """Let an agent or orchestrator in no more. It is lost at once, and its tasks go to others."""
    from anywire.errors import ConfigError
    from anywire.identities.admitted import change_admitted, read_fingerprint

    config, _ = given.settle(quiet=True)
    path, print_ = _path(admitted_file, config), read_fingerprint(who)

    def change(admitted: Admitted) -> Admitted:
        if print_ not in admitted.ends or admitted.ends[print_].revoked:
            raise ConfigError(f"{print_} is not admitted in {path}")
        return admitted.without(print_)

    change_admitted(path, change)
    typer.echo(f"revoked {print_} in {path}", err=True)


@app.command("list")
@options.takes()
def list_admitted(given: options.Given, admitted_file: AdmittedFile = None, as_json: options.Json = False) -> None:
    """List the agents and orchestrators that are let in."""
    import msgspec

    from anywire.identities.admitted import read_admitted

    config, _ = given.settle(quiet=True)
    found = list(read_admitted(_path(admitted_file, config)).ends.values())
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
        return
    print_table(("fingerprint", "role", "ids", "admitted"), [_admitted_row(each) for each in found])


def _path(named: Path | None, config: Config) -> Path:
    if named is not None:
        return named
    if config.identity.admitted is not None:
        return config.identity.admitted
    return _of_running() or config_folder() / "admitted.json"


def _of_running() -> Path | None:
    from anywire.cli.fleet_records import running_fleets

    return next((Path(each.admitted) for each in running_fleets() if each.admitted), None)


def _agent_row(each: dict[str, Any]) -> Row:
    load = each["load"]
    return (
        each["id"],
        str(each["pid"]),
        each["host"],
        each["transport"],
        _models(each),
        each["engine"],
        str(each["slots"]),
        _state(each),
        f"{load['active']} active, {load['in_flight']} ours",
    )


def _models(each: dict[str, Any]) -> str:
    """Its models, and the state of each that is not ready."""
    states = {offer["model"]: offer.get("state", "ready") for offer in each.get("offers", ())}
    shown = ((model, states.get(model, "ready")) for model in each["models"])
    return ", ".join(model if state == "ready" else f"{model} ({state})" for model, state in shown)


def _state(each: dict[str, Any]) -> Text:
    health = each.get("health", {})  # a server of an earlier version tells none
    words = agent_state(each["state"], health.get("order", ""), health.get("state", ""), health.get("slow_start", 0))
    colour = next((found for word in words.split(", ") if (found := ALARMING.get(word))), "green")
    return coloured(words, colour, "; ".join(filter(None, (each["detail"], why(health)))))


def _waiting_row(each: dict[str, Any]) -> Row:
    return each["id"], each["host"], each["role"], each["fingerprint"] or "none", each["reason"]


def _admitted_row(each: AdmittedEnd) -> Row:
    ids = ", ".join(printable(end_id) for end_id in each.ids)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.admitted)) if each.admitted else ""
    since += f", invited by the key {each.invited}" if each.invited else ""
    return each.fingerprint, each.role, ids + (" alone" if each.fixed else ""), "revoked" if each.revoked else since
