"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(head: tuple[str, ...], rows: Iterable[str]) -> Iterator[str]:
    yield row(*head)
    yield "|" + "---|" * len(head)
    yield from rows
