"""The command ``anywire``. What a command needs beyond its options is imported when it runs."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer

from anywire.asked_fleet import INTERRUPTED
from anywire.cli import (
    agents,
    answers,
    chat,
    demo,
    doctor,
    explain,
    init,
    inspect,
    invite,
    keys,
    orders,
    reload,
    serve,
    shell,
    up,
    watch,
)
from anywire.cli.plugin_commands import with_fleet
from anywire.cli.shown_arguments import hide_secrets
from anywire.errors import AnywireError
from anywire.printable import escaped
from anywire.secrecy import hide_in_tracebacks

app = typer.Typer(
    name="anywire",
    help="One orchestration pipeline for LLM agents, over any transport.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain text: what stands in brackets is no markup.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(up.up)
app.command()(serve.serve)
app.command()(serve.agent)
app.command()(invite.invite)
app.command()(chat.chat)
app.add_typer(agents.app)
app.command()(orders.drain)
app.command()(orders.isolate)
app.command()(orders.restore)
app.command()(reload.reload)
app.command()(inspect.tasks)
app.command()(explain.explain)
app.command()(watch.watch)
app.command()(inspect.plugins)
app.command()(doctor.doctor)
app.command()(inspect.config)
app.command()(init.init)
app.command()(init.schema)
app.command()(shell.completion)
app.command()(shell.man)
app.add_typer(keys.app)
app.add_typer(answers.app)
for _point in sorted(entry_points(group="anywire.commands"), key=lambda point: point.name):
    # An installed distribution's own commands, a typer app each. They cost their import, so that must be light.
    app.add_typer(with_fleet(_point.load()), name=_point.name)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"anywire {version('anywire')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command. Exit status: 0 for success, 1 for an error, 2 for wrong usage, 130 when it was stopped first."""
    hide_secrets()
    hide_in_tracebacks()
    if shell.is_asked():
        shell.answer_shells()
    try:
        app(complete_var=shell.ASKED)
    except AnywireError as error:
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            logging.getLogger("anywire").debug("what led to the error", exc_info=error)
        said = escaped(str(error), keep="\n")  # a server's or an agent's words may be in it
        print(f"error: {said}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output is gone (a pager, head); there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
