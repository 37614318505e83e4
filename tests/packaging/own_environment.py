"""Environments in which nothing is installed but what a test installs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import BytesParser
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
WITHOUT = shutil.ignore_patterns("*.egg-info", "__pycache__", "build")
"""What was built of sources, and is not copied with them."""


def make_environment(folder: Path) -> Path:
    """The Python of a new environment in ``folder``. It has no pip: `install` uses that of this environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def install(python: Path, *what: str | Path, env: dict[str, str] | None = None) -> None:
    """Install into an environment, in the versions of constraints.txt. Modules are compiled once they are imported."""
    command: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    subprocess.run([*command, "--constraint", ROOT / "constraints.txt", *what], check=True, env=env)


def lend(python: Path, wheel: Path, extra: str = "") -> None:
    """Give an environment what ``wheel`` needs of others, from this environment: it is linked, and nothing is loaded or
    compiled again."""
    (target,) = python.parents[1].glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (each for each in opened.namelist() if each.endswith(".dist-info/METADATA"))
        needed = BytesParser().parsebytes(opened.read(name)).get_all("Requires-Dist") or []
    for each in _closure(needed, extra):
        for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            if not (target / top).exists():
                (target / top).symlink_to(Path(str(each.locate_file(top))))


def _closure(needed: Iterable[str], extra: str) -> list[Distribution]:
    found: dict[str, Distribution] = {}
    wanted = [(line, extra) for line in needed]
    while wanted:
        line, extra = wanted.pop()
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if name not in found or requirement.extras:
            found[name] = distribution(name)
            for of in ("", *requirement.extras):
                wanted += [(each, of) for each in found[name].requires or ()]
    return list(found.values())


def core_sources(folder: Path) -> Path:
    """A copy of what the core is built of, in ``folder``."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "core", folder / "core", ignore=WITHOUT)
    return folder


def build_wheels(wheels: Path, *sources: Path) -> None:
    """Build wheels of ``sources``, which are written to."""
    command: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, f"--wheel-dir={wheels}", *sources], check=True)
