"""Printing a log, and going on with it where it has broken off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import typer

from anywire.errors import AnywireError, NoAgent, ShuttingDown, TaskError
from anywire.not_understood import NotUnderstood
from anywire.printable import escaped

RETRY_FIRST, RETRY_MOST = 0.2, 5.0  # seconds

AskForLog = Callable[[str, Callable[[Any], None]], None]
"""Asks for a log after the line of an id, empty for its newest lines, and hands on each result as it comes."""


def print_log(ask: AskForLog, *, after: str, follow: bool, as_json: bool) -> None:
    """Print the results of a log. One that is followed is asked for again when it breaks off, until its user ends that,
    and goes on after the newest line that was printed. Raises what ``ask`` raises before the first line, and what would
    be the same the next time."""
    printer = _Printer(as_json, after)
    pause = 0.0
    while True:
        printer.has_news = False
        try:
            ask(printer.after, printer.show)
            return
        except AnywireError as error:
            if not follow or not printer.can_go_on or _is_final(error):
                raise
            if printer.has_news:
                pause = RETRY_FIRST
                typer.echo(escaped(f"(the log broke off, and is asked for again: {error})"), err=True)
        time.sleep(pause)
        pause = min(2 * pause, RETRY_MOST)


def _is_final(error: AnywireError) -> bool:
    """Whether the answer would be the same again: what is wrong with the request, and not with the way there."""
    if isinstance(error, NotUnderstood):
        return True
    return isinstance(error, TaskError) and not isinstance(error, NoAgent | ShuttingDown)


class _Printer:
    """``after`` is the id of the newest line that was printed, and ``can_go_on`` says that there is one. ``has_news``:
    something was printed since this was set to False."""

    def __init__(self, as_json: bool, after: str) -> None:
        self.after = after
        self.can_go_on = self.has_news = False
        self._as_json = as_json

    def show(self, result: Any) -> None:
        line = result.get("line") if isinstance(result, dict) else None
        if isinstance(line, str):
            line_id = result.get("id")
            self.after = line_id if isinstance(line_id, str) else ""
            self.can_go_on = bool(self.after)
            said, is_line = escaped(line, keep="\t"), True
        else:
            said, is_line = _gap(result), False
        if self._as_json:
            typer.echo(json.dumps(result))
        else:
            typer.echo(said, err=not is_line)
        self.has_news = True


def _gap(result: Any) -> str:
    """What is said where lines are left out."""
    if isinstance(result, dict) and type(result.get("missed")) is int:
        return f"({result['missed']} lines are left out here: they are not kept any more)"
    if isinstance(result, dict) and result.get("reset") is True:
        return "(lines may be left out here: the log has begun anew)"
    raise NotUnderstood("the agent told a line that is none")
