"""``anywire models``: the models of an agent. What a command needs beyond its options is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anywire.asked_fleet import GivenFleet, asks_fleet, until_interrupted
from anywire_engine_models.cli.after import After

app = typer.Typer(
    name="models",
    help="List, start, stop and follow the models of an agent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AgentId = Annotated[
    str | None,
    typer.Option(
        "--agent",
        metavar="ID",
        help="Ask this agent, through its orchestrator. Default: the agent of yours that runs here with `local_api`, "
        "else the only one of the orchestrator with models.",
    ),
]
Api = Annotated[
    str | None,
    typer.Option(
        "--api", metavar="URL", help="Ask the agent of yours whose `local_api` is there, where several run here."
    ),
]
RegistryFile = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="FILE",
        help="Use this registry file, without an agent. Default where no agent runs: the file of your user.",
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Full identifier of the model, as `anywire models list` tells it.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
@asks_fleet
def list_models(
    given: GivenFleet,
    agent_id: AgentId = None,
    api: Api = None,
    registry: RegistryFile = None,
    as_json: Json = False,
) -> None:
    """List models and their states. Tells the memory they use, and the devices there are."""
    from anywire_engine_models.cli import asking
    from anywire_engine_models.cli.where import place

    asking.show_models(place(given, agent_id, api, registry, in_file=True), as_json)


@app.command()
@asks_fleet
def start(given: GivenFleet, model: Model, agent_id: AgentId = None, api: Api = None, as_json: Json = False) -> None:
    """Start a model. Shows how it loads, and ends when it runs, or with an error that says why it does not."""
    from anywire_engine_models.cli import asking
    from anywire_engine_models.cli.where import place

    asking.start_model(place(given, agent_id, api), model, as_json)


@app.command()
@asks_fleet
def stop(
    given: GivenFleet,
    model: Model,
    agent_id: AgentId = None,
    api: Api = None,
    if_idle: Annotated[
        bool, typer.Option("--if-idle", help="Refuse to stop a model that is pinned, or that requests use.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Stop a model, also one that is starting. Answers under way end with an error."""
    from anywire_engine_models.cli import asking
    from anywire_engine_models.cli.where import place

    command = "models.unload" if if_idle else "models.stop"
    asking.change_model(place(given, agent_id, api), command, {"model": model}, as_json)


@app.command()
@asks_fleet
def status(given: GivenFleet, model: Model, agent_id: AgentId = None, api: Api = None, as_json: Json = False) -> None:
    """Show all that is known of a model. Tells how its server ended last and what that wrote."""
    from anywire_engine_models.cli import asking
    from anywire_engine_models.cli.where import place

    asking.show_status(place(given, agent_id, api), model, as_json)


@app.command()
@asks_fleet
def logs(
    given: GivenFleet,
    model: Model,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=10_000, help="Lines to begin with.")] = 100,
    after: After = "",
    agent_id: AgentId = None,
    api: Api = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each line.")] = False,
) -> None:
    """Print what a model's server wrote. Lines of earlier processes of the model come first. One that is followed goes
    on where it was when the connection breaks."""
    from anywire_engine_models.cli import asking
    from anywire_engine_models.cli.where import place

    where = place(given, agent_id, api)
    with until_interrupted(follow):
        asking.print_log(where, model, lines, after=after, follow=follow, as_json=as_json)


@app.command()
@asks_fleet
def add(
    given: GivenFleet,
    model_file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="GGUF file, on the agent's machine. Leave it out for a model that a `command` serves.",
            show_default=False,
        ),
    ] = None,
    full_identifier: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="PROVIDER:NAME:VERSION",
            help="Full identifier. Default: local:NAME:QUANTIZATION, by the file's name.",
        ),
    ] = None,
    model_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="KEY=VALUE",
            help="Setting of the model, as in the registry: on_demand=true, context=8192. The value is YAML. "
            "Repeatable.",
        ),
    ] = None,
    agent_id: AgentId = None,
    api: Api = None,
    registry: RegistryFile = None,
    as_json: Json = False,
) -> None:
    """Add a model to the registry. It is there at once, and stopped."""
    from anywire_engine_models.cli import asking
    from anywire_engine_models.cli.entries import entry_of
    from anywire_engine_models.cli.where import place

    where = place(given, agent_id, api, registry, in_file=True)
    entry = entry_of(
        where.path_of(model_file) if model_file is not None else None, full_identifier, model_settings or ()
    )
    asking.add_model(where, entry, as_json)


@app.command("import")
@asks_fleet
def import_models(
    given: GivenFleet,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="gguf: a folder of GGUF files; ollama: an Ollama store; llama-swap: its YAML file.",
            show_default=False,
        ),
    ],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Where it is, on the agent's machine.", show_default=False)
    ],
    agent_id: AgentId = None,
    api: Api = None,
    registry: RegistryFile = None,
    as_json: Json = False,
) -> None:
    """Import models into the registry. Models that it has already stay as they are; what is left out is told."""
    from anywire_engine_models.cli import asking
    from anywire_engine_models.cli.where import place

    where = place(given, agent_id, api, registry, in_file=True)
    asking.import_models(where, kind, where.path_of(path), as_json)


@app.command()
@asks_fleet
def pin(
    given: GivenFleet,
    model: Model,
    agent_id: AgentId = None,
    api: Api = None,
    registry: RegistryFile = None,
    as_json: Json = False,
) -> None:
    """Pin a model: it is not stopped to make room for another one. The registry keeps that."""
    _pin(given, model, agent_id, api, registry, as_json, pinned=True)


@app.command()
@asks_fleet
def unpin(
    given: GivenFleet,
    model: Model,
    agent_id: AgentId = None,
    api: Api = None,
    registry: RegistryFile = None,
    as_json: Json = False,
) -> None:
    """Undo `pin`. The model makes room again when others need its memory."""
    _pin(given, model, agent_id, api, registry, as_json, pinned=False)


def _pin(
    given: GivenFleet,
    model: str,
    agent_id: str | None,
    api: str | None,
    registry: Path | None,
    as_json: bool,
    *,
    pinned: bool,
) -> None:
    from anywire_engine_models.cli import asking
    from anywire_engine_models.cli.where import place

    where = place(given, agent_id, api, registry, in_file=True)
    asking.change_model(where, "models.pin", {"model": model, "pinned": pinned}, as_json)
