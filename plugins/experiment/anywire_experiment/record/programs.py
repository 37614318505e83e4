"""What a program of a plan is: the package that brought it, or its file, and its version."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from anywire.errors import ConfigError
from anywire_experiment.plan.programs import Program

_LARGEST = 256 * 1024 * 1024
"""Bytes of a program that are hashed."""
_TIMEOUT = 60.0
_LONGEST = 200


class Found(NamedTuple):
    """What was found of a program: the package that brought it with its version, or only that; the name of its file;
    how many files the package has, or 1; and a hash of the package's list of files, or of the file."""

    distribution: str = ""
    version: str = ""
    module: str = ""
    files: int = 0
    sha256: str = ""


def program_found(where: str, program: Program) -> Found:
    """Of the program that is started. Raises `ConfigError` when it is not there."""
    found = program.found()
    if found is None:
        raise ConfigError(f"{where}: {missing(program)}")
    told = _told_version(program)
    if program.command[0] == "{python}":
        return _written(program) or Found(module=Path(found).name, version=told)
    path = Path(found)
    for information in _packages(path):
        files = _brought(information, path)
        if files:
            name, _, version = information.name.removesuffix(".dist-info").rpartition("-")
            return Found(name, version, path.name, files, _hash_of(information))
    real = path.resolve()
    if real.stat().st_size > _LARGEST:
        return Found(version=told, module=real.name)
    with real.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256(f"{real.name} {digest}\n".encode()).hexdigest()
    return Found(version=told, module=real.name, files=1, sha256=whole)


def _written(program: Program) -> Found | None:
    """Of ``{python} {folder}/NAME``, where the plan has that file among `files`: those are its code."""
    script = program.command[1].removeprefix("{folder}/") if len(program.command) > 1 else ""
    if script not in program.files:
        return None
    listed = "".join(
        f"{name} {hashlib.sha256(text.encode()).hexdigest()}\n" for name, text in sorted(program.files.items())
    )
    return Found(module=script, files=len(program.files), sha256=hashlib.sha256(listed.encode()).hexdigest())


def missing(program: Program) -> str:
    """Why it cannot be started; empty when its program is there."""
    if program.found() is not None:
        return ""
    unset = [each for each in program.search if "$" in os.path.expandvars(each)]
    also = f"; {unset[0]} names a variable that is not set" if unset else ""
    return f"there is no program {program.command[0]!r} here; install it first, or name its folder in `search`{also}"


def _packages(path: Path) -> Iterator[Path]:
    """The packages in the environment that a program lies in, if it lies in one of Python."""
    yield from sorted(path.parent.parent.glob("lib/python*/site-packages/*.dist-info"))


def _brought(information: Path, program: Path) -> int:
    """How many files the package has, where the program is one of them, else 0."""
    try:
        with (information / "RECORD").open(encoding="utf-8", newline="") as file:
            names = [row[0] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return 0
    wanted = f"/bin/{program.name}"
    return len(names) if any(name.endswith(wanted) and name.startswith("..") for name in names) else 0


def _hash_of(information: Path) -> str:
    """Of the package's files and their hashes, without what installing adds, which tells of this machine."""
    lines = (information / "RECORD").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if ",sha256=" in line and ".dist-info/" not in line and not line.startswith("..")]
    return hashlib.sha256("\n".join(sorted(kept)).encode()).hexdigest()


def _told_version(program: Program) -> str:
    """The first line that its command `version` says; empty without one."""
    if not program.version:
        return ""
    name, *arguments = program.version
    found = name if name != program.command[0] else program.found() or name
    kept = {**os.environ, "PATH": program.path()}
    try:
        done = subprocess.run([found, *arguments], capture_output=True, timeout=_TIMEOUT, env=kept, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"version: {error}") from error
    lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
    return lines[0][:_LONGEST] if lines else ""
