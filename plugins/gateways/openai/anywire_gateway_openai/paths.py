"""Paths that are almost right: base URLs are joined by hand, with a slash or a version too many or too few."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_SLASHES = re.compile("/{2,}")


def tidied(path: str) -> str:
    """``path`` without doubled slashes and final ones."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


def meant(path: str, bases: Sequence[str], exists: Callable[[str], bool]) -> str:
    """The path that a client seems to mean with one that leads nowhere; empty when it is no guess. A base is missing,
    stands there twice, or is written large."""
    rest = tidied(path)
    while True:
        base = next((each for each in bases if rest.lower().startswith(f"{each}/")), "")
        if not base:
            break
        rest = rest[len(base) :]
    return next((bases[0] + each for each in (rest, rest.lower()) if exists(bases[0] + each)), "")
