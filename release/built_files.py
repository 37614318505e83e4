"""What must be in the files of a release, read from the files alone."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement

from own_distributions import Distribution

OTHERS = {"__pycache__"}
"""Folders of a package that are in no wheel."""
NEEDED = ("Summary", "License-Expression", "Requires-Python", "Author", "Keywords", "Description-Content-Type")
_HOST = re.compile(r"https?://(localhost|127\.|10\.|192\.168\.|[\w.-]*\.(?:local|internal|lan)\b)")


def faults(distribution: Distribution, folder: Path) -> list[str]:
    """What is wrong with the wheel and the source distribution of one in ``folder``; none when all is well."""
    stem = f"{distribution.name.replace('-', '_')}-{distribution.project['version']}"
    wheel, source = folder / f"{stem}-py3-none-any.whl", folder / f"{stem}.tar.gz"
    missing = [f"there is no {path.name}" for path in (wheel, source) if not path.is_file()]
    return missing or [f"{wheel.name}: {each}" for each in _wheel_faults(distribution, wheel, source)]


def _wheel_faults(distribution: Distribution, wheel: Path, source: Path) -> Iterator[str]:
    package = distribution.package
    wanted = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and not OTHERS & set(path.parts)
    }
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        info = next(name.partition("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
        metadata = opened.read(f"{info}/METADATA")
        if f"{info}/licenses/LICENSE" not in names:
            yield "its licence is not in it"
    inside = {name for name in names if not name.startswith(f"{info}/")}
    yield from (f"{name} is not in it" for name in sorted(wanted - inside))
    yield from (f"{name} is in it and not in the repository" for name in sorted(inside - wanted))
    if f"{package.name}/py.typed" not in inside:
        yield "py.typed is not in it: type checkers would not read it"
    with tarfile.open(source) as archive:
        told = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    prefix = "core/" if distribution.is_core else ""
    yield from (
        f"{prefix}{name} is not in the source distribution" for name in sorted(inside) if prefix + name not in told
    )
    yield from _metadata_faults(distribution, metadata)


def _metadata_faults(distribution: Distribution, data: bytes) -> Iterator[str]:
    """What an index would refuse, and what a reader of its page would miss."""
    try:
        Metadata.from_email(data, validate=True)
    except ExceptionGroup as error:
        yield from (str(each) for each in error.exceptions)
        return
    read = BytesParser().parsebytes(data)
    yield from (f"its metadata have no {key}" for key in NEEDED if not read[key])
    if not str(read.get_payload()).strip():
        yield "it has no description: the README is missing"
    if not read.get_all("Classifier"):
        yield "it has no classifiers"
    if found := _HOST.search("\n".join(read.get_all("Project-URL") or [])):
        yield f"a URL leads to a machine that others do not reach: {found[0]}"
    version = distribution.project["version"]
    for each in map(Requirement, read.get_all("Requires-Dist") or []):
        if each.name.startswith("anywire") and str(each.specifier) != f"=={version}":
            yield f"{each.name} is not required in version {version}: {each.specifier or 'any'}"
