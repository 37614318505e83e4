"""The commands by name, and apps with as many of them as a command line asks for.

Importing every command, and telling Typer of every option, takes most of the time in which ``anywire --help`` answers.
So `app_for` imports one command where one is named. For the overview it imports them all, without their options.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli import shell
from anywire.cli.plugin_commands import with_fleet
from anywire.errors import PluginError
from anywire.printable import escaped

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

COMMANDS = {
    "demo": "demo:demo",
    "up": "up:up",
    "serve": "serve:serve",
    "agent": "serve:agent",
    "invite": "invite:invite",
    "chat": "chat:chat",
    "agents": "agents:app",
    "drain": "orders:drain",
    "isolate": "orders:isolate",
    "restore": "orders:restore",
    "reload": "reload:reload",
    "tasks": "inspect:tasks",
    "explain": "explain:explain",
    "watch": "watch:watch",
    "plugins": "inspect:plugins",
    "doctor": "doctor:doctor",
    "config": "inspect:config",
    "init": "init:init",
    "schema": "init:schema",
    "completion": "shell:completion",
    "man": "shell:man",
    "keys": "keys:app",
    "answers": "answers:app",
}
"""The core's commands in the order of the overview: module and name of a function, or of an app with commands."""
GROUP = "anywire.commands"
"""The entry points of plugins' commands, a typer app each."""
_OF_ALL = ("completion", "man")
"""Commands that tell of all the others."""
_OVERVIEW = ("--help", "-h")


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """An app that answers these arguments as `whole_app` does, and imports no more than that takes. Raises
    `PluginError` where they name a plugin's command that does not load."""
    word = arguments[0] if arguments else "--help"
    if word == "--version":
        return _root()
    if word in _OVERVIEW:
        return _overview()
    if word in COMMANDS and word not in _OF_ALL:
        app = _root()
        _add(app, word, _command(word))
        return app
    points = [point for point in _points() if point.name == word]
    if points:
        app = _root()
        _add(app, word, with_fleet(_plugin_app(points[-1])))
        return app
    return whole_app()


def whole_app() -> typer.Typer:
    """All commands with all of their options. A plugin's commands that do not load, or whose options cannot be read,
    are left out, and told of."""
    app = _root()
    for word in COMMANDS:
        _add(app, word, _command(word))
    for point in _points():
        found = _or_told(point, with_options=True)
        if found is not None:
            _add(app, point.name, found)
    return app


def _overview() -> typer.Typer:
    """All commands, without what they take."""
    app = _root()
    for word in COMMANDS:
        found = _command(word)
        _add(app, word, _bare(found) if isinstance(found, typer.Typer) else _takes_nothing(found))
    for point in _points():
        theirs = _or_told(point)
        if theirs is not None:
            _add(app, point.name, _bare(theirs))
    return app


def _root() -> typer.Typer:
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
    app.callback()(_every_command)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"anywire {version('anywire')}")
        raise typer.Exit


def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _add(app: typer.Typer, name: str, command: Callable[..., Any] | typer.Typer) -> None:
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


def _command(name: str) -> Callable[..., Any] | typer.Typer:
    module, _, attribute = COMMANDS[name].partition(":")
    found: Callable[..., Any] | typer.Typer = getattr(import_module(f"anywire.cli.{module}"), attribute)
    return found


def _points() -> list[EntryPoint]:
    """Commands of plugins by name; those of the core are not replaced."""
    from importlib.metadata import entry_points

    found = (point for point in entry_points(group=GROUP) if point.name not in COMMANDS)
    return sorted(found, key=lambda point: point.name)


def _plugin_app(point: EntryPoint, *, with_options: bool = False) -> typer.Typer:
    try:
        app = point.load()
        if not isinstance(app, typer.Typer):
            raise TypeError(f"{point.value} is no typer app")
        if with_options:
            typer.main.get_group(with_fleet(app))  # reads them all
        return app
    except Exception as error:
        whose = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
        raise PluginError(
            f"the command {point.name!r}{whose} does not load: {type(error).__name__}: {error}"
        ) from error


def _or_told(point: EntryPoint, *, with_options: bool = False) -> typer.Typer | None:
    try:
        return _plugin_app(point, with_options=with_options)
    except PluginError as error:
        if not shell.is_asked():  # what is printed would stand in the line that somebody types
            print(f"left out: {escaped(str(error))}", file=sys.stderr)
        return None


def _bare(app: typer.Typer) -> typer.Typer:
    """An app of the same description without commands and options."""
    made = typer.Typer()
    made.info = _without_options(app.info)
    if app.registered_callback is not None:
        made.registered_callback = _without_options(app.registered_callback)
    return made


def _without_options(info: Any) -> Any:
    found = copy.copy(info)
    if callable(found.callback):
        found.callback = _takes_nothing(found.callback)
    return found


def _takes_nothing(function: Callable[..., Any]) -> Callable[[], None]:
    def command() -> None:
        pass

    command.__doc__ = function.__doc__
    return command
