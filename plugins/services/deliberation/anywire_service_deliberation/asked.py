"""What ``anywire deliberate`` asks of a server, and what it shows."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import typer

from anywire.asked_fleet import GivenServer
from anywire.deliberation_terms import Asked, new_id
from anywire.deliberation_views import Whole
from anywire.errors import AnywireError, ConfigError
from anywire.printable import escaped
from anywire_service_deliberation.client import DeliberationClient
from anywire_service_deliberation.question import MAX_TASK_CHARS

if TYPE_CHECKING:
    from anywire_service_deliberation.live import Picture

STDIN = "-"
MEMBERS = 3
"""Members where models are named, and not how many members."""
MAX_RUBRIC_BYTES = 64 * 1024
LAST_LINES_S = 1.0
"""Seconds for the last lines of what goes on, once the end is known."""


@dataclass
class Wanted:
    """What the options ask for. Without a ``task`` the deliberation is there already."""

    task: str = ""
    request: Asked = field(default_factory=Asked)
    cancels: bool = False
    out: Path | None = None
    as_json: bool = False


def deliberate(given: GivenServer, name: str | None, wanted: Wanted) -> None:
    """Ask, show how it goes, and print what comes of it. Raises `typer.Exit` with 1 when there is no winner, and when
    it is interrupted, with a sentence that says how to come back to it."""
    chosen, goes_on = name or new_id(), False

    async def work(http: httpx.AsyncClient) -> Whole:
        nonlocal goes_on
        client = DeliberationClient(http=http)
        if wanted.cancels:
            await client.cancel(chosen)
            return await client.get(chosen)
        if wanted.task:
            request: Asked = {**wanted.request, "id": chosen}
            await client.submit(wanted.task, **request)
            goes_on = True
        state = await client.get(chosen)
        goes_on = not state.is_final
        return await _ended(client, state, quiet=wanted.as_json) if goes_on else state

    try:
        state = given.ask(work)
    except (typer.Exit, AnywireError):
        if goes_on:
            command = f"`anywire deliberate --id {shlex.quote(escaped(chosen))}`"
            typer.echo(f"the deliberation goes on: {command} follows it, with --cancel it ends", err=True)
        raise
    _print(state, wanted)
    if not state.winner:
        raise typer.Exit(1)


def _print(state: Whole, wanted: Wanted) -> None:
    if wanted.as_json:
        typer.echo(json.dumps(msgspec.to_builtins(state), indent=2))
    else:
        from anywire_service_deliberation.report_terminal import print_report

        print_report(state)
    if wanted.out is not None:
        _write(state, wanted.out)
        if not wanted.as_json:
            typer.echo(f"report: {escaped(str(wanted.out))}", err=True)


def _write(state: Whole, out: Path) -> None:
    from anywire_service_deliberation.report import html_page, markdown

    text = html_page(state) if out.suffix.lower() == ".html" else markdown(state)
    try:
        out.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        again = f"`anywire deliberate --id {shlex.quote(state.id)} --out FILE` writes it elsewhere"
        raise ConfigError(f"the report cannot be written: {error}; {again}") from error


# What goes on


async def _ended(client: DeliberationClient, state: Whole, *, quiet: bool) -> Whole:
    """Its end. Until then what goes on is shown on standard error: as a picture on a terminal, else in lines."""
    name = state.id
    if quiet:
        return await client.wait(name)
    from rich.console import Console

    from anywire_service_deliberation.live import Picture, drawn

    picture, in_lines = Picture(state), not sys.stderr.isatty()
    reading = asyncio.create_task(_take_in(client, name, picture, in_lines))
    showing = [reading]
    if not in_lines:
        showing.append(asyncio.create_task(drawn(picture, Console(stderr=True, highlight=False))))
    try:
        # The end counts, whatever becomes of what is shown of the way to it.
        ended = await client.wait(name)
        if in_lines:
            await asyncio.wait((reading,), timeout=LAST_LINES_S)
        return ended
    finally:
        for each in showing:
            each.cancel()
        await asyncio.gather(*showing, return_exceptions=True)


async def _take_in(client: DeliberationClient, name: str, picture: Picture, in_lines: bool) -> None:
    from anywire_service_deliberation.live import line_of

    async with aclosing(client.events(name)) as updates:
        async for update in updates:
            picture.add(update)
            if in_lines and (line := line_of(update)):
                print(escaped(line), file=sys.stderr, flush=True)


# What is asked


def members_of(number: int | None, models: Sequence[str]) -> int | list[dict[str, Any]] | None:
    """A number, or a list where models are named: the members take them in turn."""
    if not models:
        return number
    count = number if number is not None else max(MEMBERS, len(models))
    return [{"model": models[index % len(models)]} for index in range(count)]


def read_question(text: str) -> str:
    """The question, which ``-`` reads from standard input."""
    if text == STDIN:
        text = sys.stdin.read(MAX_TASK_CHARS + 1)
    if not text.strip():
        raise typer.BadParameter("it is empty", param_hint="QUESTION")
    if len(text) > MAX_TASK_CHARS:
        raise typer.BadParameter(f"it has more than {MAX_TASK_CHARS} characters", param_hint="QUESTION")
    return text


def read_rubric(name: str | None) -> str | dict[str, Any] | None:
    """A rubric's name, or what its file describes: the server says what is wrong with it."""
    if name is None or not name.lower().endswith((".yaml", ".yml")):
        return name
    import yaml

    path = Path(name)
    try:
        if path.stat().st_size > MAX_RUBRIC_BYTES:
            raise ConfigError(f"the rubric {name} has more than {MAX_RUBRIC_BYTES} bytes")
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the rubric {name} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the rubric {name} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"the rubric {name} is no mapping: it has `criteria`")
    return found
