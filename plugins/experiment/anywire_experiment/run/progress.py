"""What a person sees while an experiment runs: a bar on a terminal, a line per cell elsewhere."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from anywire_experiment.record.cells import Cell


class Lines:
    """One line per cell, for logs and pipes."""

    def shown(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def began(self, done: int, total: int) -> None:
        self.say(f"{total} cells, {done} of them done before" if done else f"{total} cells")

    def doing(self, block: int, arm: str, what: str) -> None: ...

    def finished(self, cell: Cell, done: int, total: int, seconds_left: float) -> None:
        took = (cell.ended_ns - cell.started_ns) / 1e9
        how = f"{took:.1f} s" if cell.state == "completed" else f"FAILED: {cell.reason}"
        self.say(f"{done}/{total} block {cell.block} {cell.arm}: {how}; {_time(seconds_left)} left")

    def warned(self, sentence: str) -> None:
        typer.echo(f"warning: {sentence}", err=True)

    def say(self, line: str) -> None:
        typer.echo(line)
        sys.stdout.flush()


class Terminal(Lines):
    """A bar that says what is done just now and how long it will take; failed cells stay above it."""

    def __init__(self) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(),
            # Twice a second: drawing must not disturb what is measured.
            refresh_per_second=2,
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("starting", total=None, left="")

    def shown(self) -> AbstractContextManager[Any]:
        return self._bar

    def began(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)

    def doing(self, block: int, arm: str, what: str) -> None:
        self._bar.update(self._task, description=f"block {block}, {arm}: {what}")

    def finished(self, cell: Cell, done: int, total: int, seconds_left: float) -> None:
        self._bar.update(self._task, completed=done, left=f"{_time(seconds_left)} left")
        if cell.state == "failed":
            self.say(f"block {cell.block} {cell.arm} FAILED: {cell.reason}")

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def progress() -> Lines:
    return Terminal() if sys.stdout.isatty() else Lines()


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60:02} min"
        if minutes >= 60
        else f"{minutes} min {rest:02} s"
        if minutes
        else f"{rest} s"
    )
