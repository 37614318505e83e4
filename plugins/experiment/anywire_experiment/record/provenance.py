"""The code that was measured, kept with the record as far as nobody else keeps it.

``sources/`` of a record has what differs from Anywire's commit in its Python files, as a patch, and the Python files of
each plugin that is not of Anywire. A clean commit and a published wheel are told by name and hash alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path

import anywire
from anywire_experiment.plan.arms import Arm
from anywire_experiment.record.checkout import changes_of, checkout_of
from anywire_experiment.record.masking import redacted
from anywire_experiment.record.sources import Code, Source, code_of, files_of, source_of, wheel_of
from anywire_experiment.record.storage import write_whole

SOURCES = "sources"
MOST_BYTES = 1024 * 1024
"""Of a patch, and of the files of one plugin; of more only the hash is kept."""
_OURS = "anywire"


@cache
def installed() -> dict[str, Source]:
    """By distribution, each that has plugins or commands for Anywire and is not of it, whether a plan uses it or not;
    and those of Anywire itself that were installed from wheels."""
    found: dict[str, Source] = {}
    for each in distributions():
        name = each.metadata["Name"].lower()
        if name.split("-")[0] == _OURS:
            if wheel := wheel_of(name):
                found[name] = Source(name, each.version, wheel=wheel)
        elif (module := _module_for_us(each)) is not None:
            found[name] = source_of(Code(_file_of(module), module, name, each.version))
    return dict(sorted(found.items()))


def keep(record: Path, arms: Sequence[Arm]) -> None:
    """Write into ``sources/`` what is not kept elsewhere; what another session has written stays. Raises OSError."""
    for name, text in _kept(arms):
        path = record / SOURCES / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text.encode(errors="replace"))


def code_cautions(commit: str, dirty: str, sources: Mapping[str, Source]) -> Iterator[str]:
    """What a reader must know of the code that was measured, a sentence each."""
    if _is_changed(dirty):
        yield (
            f"Anywire was not as in its commit {commit[:12]}: what differs is in the record, "
            f"{SOURCES}/{_patch_name(dirty)}, where it is of Python files and not too long"
        )
    changed = [name for name, each in sources.items() if _is_changed(each.changes) and each.commit != commit]
    if changed:
        yield f"the code of {', '.join(changed)} was not as in its commit; what ran is in the record's {SOURCES}"
    ours = {name: each for name, each in sources.items() if not name.startswith("companion ")}
    unknown = [name for name, each in ours.items() if not each.sha256 and not each.wheel]
    if unknown:
        yield f"nothing tells what code {', '.join(unknown)} had: no file of it could be hashed, or they are too large"


def _kept(arms: Sequence[Arm]) -> Iterator[tuple[str, str]]:
    own = Path(anywire.__file__)
    commit, dirty = checkout_of(own)
    if _is_changed(dirty) and (patch := changes_of(own)) and len(patch) <= MOST_BYTES:
        yield _patch_name(dirty), redacted(patch)
    for code in code_of(arms).values():
        source = source_of(code)
        of_others = code.distribution.split("-")[0] != _OURS and (not commit or source.commit != commit)
        # A module without a package is a file of the plan's, which the record has among its plugins.
        if code.file is None or not of_others or not code.distribution:
            continue
        top, files = files_of(code)
        if sum(each.stat().st_size for each in files) <= MOST_BYTES:
            folder = f"{code.distribution}-{source.sha256[:12]}"
            for each in files:
                yield f"{folder}/{each.relative_to(top).as_posix()}", redacted(each.read_text(errors="replace"))


def _patch_name(dirty: str) -> str:
    return f"{_OURS}-{dirty}.patch"


def _is_changed(changes: str) -> bool:
    return changes not in ("", "clean")


def _module_for_us(of: Distribution) -> str | None:
    return next((each.module.split(".")[0] for each in of.entry_points if each.group.split(".")[0] == _OURS), None)


def _file_of(module: str) -> str | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec is not None else None
