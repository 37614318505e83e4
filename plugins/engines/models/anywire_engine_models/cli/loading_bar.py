"""How a model that is starting is shown: a bar on a terminal, a line at each step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from anywire.printable import escaped

ENDED = ("running", "crashed")
"""The command says itself what has become of the model then."""
STEP = 0.25
"""Part of the model after which a line tells how much is loaded, where there is no terminal."""


class Bar(Protocol):
    def show(self, status: Mapping[str, Any]) -> None: ...


@contextmanager
def loading_bar(model: str) -> Iterator[Bar]:
    """What shows the statuses of ``model`` on standard error while it starts; on a terminal it is gone at the end."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _OnTerminal(progress, model)


class _OnTerminal:
    def __init__(self, progress: Any, model: str) -> None:
        self._progress, self._model = progress, model
        self._task = progress.add_task(escaped(model), total=None)

    def show(self, status: Mapping[str, Any]) -> None:
        part = status["progress"]
        self._progress.update(
            self._task, description=escaped(_said(status)), completed=part, total=1.0 if part else None
        )


class _Lines:
    def __init__(self) -> None:
        self._state, self._told = "", 0.0

    def show(self, status: Mapping[str, Any]) -> None:
        if status["state"] in ENDED or (status["state"] == self._state and status["progress"] < self._told + STEP):
            return
        self._state, self._told = status["state"], status["progress"]
        print(escaped(_said(status)), file=sys.stderr, flush=True)


def _said(status: Mapping[str, Any]) -> str:
    part = status["progress"]
    said = f"{status['model']} {'waits for memory' if status['state'] == 'stopped' else 'is ' + str(status['state'])}"
    said += f" on {status['device']}" if status["device"] else ""
    return f"{said}: {part:.0%} loaded" if part else said
