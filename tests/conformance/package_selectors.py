"""The selectors of the package anywire-selectors as its pyproject.toml names them, also where it is installed in an
older state."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

from anywire.hookspecs import hookimpl

PROJECT = Path(__file__).parents[2] / "plugins" / "selectors" / "pyproject.toml"
NAMES: dict[str, str] = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]["anywire.selectors"]


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    if kind != "selectors":
        return None
    return {name: EntryPoint(name, value, "anywire.selectors").load() for name, value in NAMES.items()}
