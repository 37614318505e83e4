"""``anywire answers``: record the answers of an engine, and show what is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anywire.cli import options
from anywire.cli.tables import print_json
from anywire.printable import escaped

if TYPE_CHECKING:
    from anywire.roles.stop import Stop

app = typer.Typer(
    name="answers",
    help="Record the answers of an engine. The engine `recorded` gives them again, in tests and demos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

MAX_SHOWN = 60
File = Annotated[Path, typer.Argument(metavar="FILE", help="File of answers.", show_default=False)]


@app.command()
@options.takes("host", "port", "engine", "model", "slots")
def record(
    to: File,
    given: options.Given,
    append: Annotated[bool, typer.Option("--append", help="Add to a file that is there.")] = False,
) -> None:
    """Write what an engine answers to FILE. An orchestrator with one agent runs until you stop it: point your
    application to the address that is printed."""
    from anywire.cli.fleet_records import recording
    from anywire.cli.serve import say_served
    from anywire.config import replaced
    from anywire.errors import ConfigError
    from anywire.recorded_answers import read_answers
    from anywire.roles import stop
    from anywire.roles.orchestrator_and_agents import running

    if to.exists() and not append:
        raise ConfigError(f"{to} is there already: name another file, or add to it with --append")
    if to.exists() and to.stat().st_size:
        read_answers(to)
    settled, plugins = given.serving(apart=True, transports=["memory"])
    engine = settled.config.engine
    if engine.name in ("recorded", "recording") or settled.config.agents:
        raise ConfigError("name the engine that is to be recorded with --engine, and no agents beside it")
    inner = {"name": engine.name, **engine.options}
    config = replaced(settled.config, engine={"name": "recording", "file": str(to.absolute()), "inner": inner})

    with recording() as tell:

        async def role(asked: Stop) -> None:
            async with running(config, plugins, asked, 1) as served:
                say_served(settled, served, tell, f"answers of {engine.name} go to {to}, ")
                await asked.wait()

        stop.run(role)


@app.command()
def show(file: File, as_json: options.Json = False) -> None:
    """Show what is recorded in FILE."""
    from anywire.builtin.recorded import question_in
    from anywire.recorded_answers import read_answers

    answers = read_answers(file)
    if as_json:
        print_json(
            [
                {
                    "kind": each.kind,
                    "model": each.model,
                    "stream": each.stream,
                    "asked": question_in(each.request),
                    "text": each.text,
                    "more_than_text": not each.is_plain,
                }
                for each in answers
            ]
        )
        return
    for each in answers:
        asked, text = _short(question_in(each.request)), _short(each.text or "(more than text)")
        typer.echo(escaped(f"{each.kind} {each.model}{' streamed' if each.stream else ''}: {asked!r} → {text!r}"))


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
