"""The distributions of this repository, found by their ``pyproject.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Distribution(NamedTuple):
    """One distribution: where it is, and what its ``pyproject.toml`` has in ``[project]``."""

    folder: Path
    project: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.project["name"])

    @property
    def file(self) -> Path:
        """Its ``pyproject.toml``."""
        return self.folder / "pyproject.toml"

    @property
    def is_core(self) -> bool:
        return self.name == "anywire"

    @property
    def package(self) -> Path:
        """The folder of the package that it installs."""
        if self.is_core:
            return self.folder / "core" / "anywire"
        (found,) = (each.parent for each in self.folder.glob("anywire_*/__init__.py"))
        return found

    @property
    def extra(self) -> str:
        """The extra of ``anywire`` that installs it: ``anywire[gateway-openai]``."""
        return self.name.removeprefix("anywire-")

    @property
    def required(self) -> Sequence[str]:
        """What it needs, without its extras."""
        return [str(each) for each in self.project["dependencies"]]


def distributions(root: Path = ROOT) -> list[Distribution]:
    """The core first, then the plugins by name."""
    plugins = sorted((_read(path) for path in (root / "plugins").rglob("pyproject.toml")), key=lambda each: each.name)
    return [_read(root / "pyproject.toml"), *plugins]


def examples(root: Path = ROOT) -> list[Distribution]:
    """Those that stand for a third party's; they are not released."""
    return [_read(path) for path in sorted((root / "examples").glob("*/pyproject.toml"))]


def _read(path: Path) -> Distribution:
    return Distribution(path.parent, tomllib.loads(path.read_text(encoding="utf-8"))["project"])
