"""What the commands of ``anywire models`` do: ask, and print what comes."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, ParamSpec, TypeVar

import typer

from anywire.not_understood import NotUnderstood
from anywire.printable import escaped
from anywire_engine_models.cli import followed_log, shown
from anywire_engine_models.cli.loading_bar import loading_bar
from anywire_engine_models.cli.places import Models, Place
from anywire_engine_models.status_json import IMPORTED, merged, whole_status

Status = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


def understood(command: Callable[P, T]) -> Callable[P, T]:
    """An agent is a stranger: what it tells may be a number where there should be a text."""

    @functools.wraps(command)
    def carried_out(*args: P.args, **named: P.kwargs) -> T:
        try:
            return command(*args, **named)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise NotUnderstood(f"what the agent told cannot be shown: {error}") from error

    return carried_out


@understood
def show_models(place: Place, as_json: bool) -> None:
    told = merged(_asked(place, "models.list", {}), "models")
    told["models"] = [_whole(each) for each in told["models"]]
    if as_json:
        _print_json(told)
        return
    shown.print_models(told)


@understood
def start_model(place: Place, model: str, as_json: bool) -> None:
    async def ask(models: Models) -> Status | None:
        last: Status | None = None
        with loading_bar(model) as bar:
            async for each in _results(models, "models.start", {"model": model}):
                last = _whole(each)
                bar.show(last)
        return last

    status = place.ask(ask)
    if status is None:
        raise NotUnderstood(f"the agent told nothing of {model}")
    _print_status(status, as_json)


@understood
def change_model(place: Place, command: str, arguments: Mapping[str, Any], as_json: bool) -> None:
    """A command that tells one status."""
    told = _asked(place, command, arguments)
    if not told:
        raise NotUnderstood(f"the agent told nothing of {arguments['model']}")
    _print_status(_whole(told[-1]), as_json)


@understood
def show_status(place: Place, model: str, as_json: bool) -> None:
    (told,) = _asked(place, "models.status", {"model": model})[-1:] or [None]
    if told is None:
        raise NotUnderstood(f"the agent told nothing of {model}")
    if as_json:
        _print_json(_whole(told))
    else:
        shown.print_whole_status(_whole(told))


def print_log(place: Place, model: str, lines: int, *, after: str, follow: bool, as_json: bool) -> None:
    def ask(after: str, show: Callable[[Any], None]) -> None:
        async def ask_at(models: Models) -> None:
            arguments = {"model": model, "lines": lines, "follow": follow} | ({"after": after} if after else {})
            async for each in _results(models, "models.logs", arguments):
                show(each)

        place.ask(ask_at)

    followed_log.print_log(ask, after=after, follow=follow, as_json=as_json)


@understood
def add_model(place: Place, entry: Mapping[str, Any], as_json: bool) -> None:
    told = _asked(place, "models.add", entry)
    status = _whole(told[-1]) if told else None
    if status is None:
        raise NotUnderstood("the agent did not say what it has added")
    if as_json:
        _print_json(status)
    else:
        typer.echo(f"added {escaped(str(status['model']))}")


@understood
def import_models(place: Place, kind: str, path: str, as_json: bool) -> None:
    told = merged(_asked(place, "models.import", {"kind": kind, "path": path}), *IMPORTED)
    if as_json:
        _print_json(told)
    else:
        shown.print_import(told)


def _asked(place: Place, command: str, arguments: Mapping[str, Any]) -> list[Any]:
    async def ask(models: Models) -> list[Any]:
        return [each async for each in _results(models, command, arguments)]

    return place.ask(ask)


async def _results(models: Models, command: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    async with aclosing(models.command(command, arguments)) as results:
        async for each in results:
            if not isinstance(each, dict):
                raise NotUnderstood(f"the answer to {command} is no object")
            yield each


def _whole(told: Any) -> Status:
    if not isinstance(told, dict) or not isinstance(told.get("model"), str):
        raise NotUnderstood("the agent told a status without its model")
    return whole_status(told)


def _print_status(status: Status, as_json: bool) -> None:
    if as_json:
        _print_json(status)
    else:
        typer.echo(shown.status_line(status))


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
