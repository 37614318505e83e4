"""What ``anywire models`` needs of whomever it asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

Answer = TypeVar("Answer")

PACKAGE = "package:"
"""Begins a path that names an installed Python package with a model."""


class Models(Protocol):
    """Whoever carries out the commands ``models.*`` (`anywire.engine.Engine.command`)."""

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]: ...


class Place(Protocol):
    """Where the models are."""

    def ask(self, work: Callable[[Models], Awaitable[Answer]]) -> Answer:
        """The result of ``work``. Raises `AnywireError`, and what an interrupted command raises."""
        ...

    def path_of(self, text: str) -> str:
        """The path that the user has written, as the other side can use it. Raises `typer.BadParameter`."""
        ...


def path_here(text: str) -> str:
    """A path as it is on this machine, absolute."""
    return text if text.startswith(PACKAGE) else str(Path(text).expanduser().absolute())
