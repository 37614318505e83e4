"""Whether a record still is what was sealed, and its figures still follow from its raw data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from anywire.errors import ConfigError
from anywire_experiment.analysis.analyse import differences as figures_that_differ
from anywire_experiment.fault_table import record as fault_records
from anywire_experiment.record import folder as records
from anywire_experiment.record import signature, timestamp
from anywire_experiment.record.compact import opened
from anywire_experiment.record.figures import hash_of_figures, libraries
from anywire_experiment.record.manifest import (
    CHANGED,
    DERIVED,
    FORMAT,
    MANIFEST,
    RESULTS,
    Manifest,
    differences,
    is_of_derived,
    read_manifest,
)
from anywire_experiment.record.storage import RecordError
from anywire_experiment.report import results_text, side_by_side, texts

_SHOWN = 5
"""Faults of a record that are told where it is refused."""


class Verified(NamedTuple):
    """What is wrong with a record, a sentence each, what else its reader should know, and who has signed it."""

    faults: list[str]
    notes: list[str]
    signed: str = ""


def verified(path: Path, author: str = "", authority: Path | None = None) -> Verified:
    """Whether the record at ``path``, a folder or a published file, is as it was sealed and follows from its raw data.

    ``author`` is the fingerprint of whoever must have signed it, any when empty; ``authority`` a file with
    certificates, of which one must vouch for its timestamp. A record of another format is told as such: its figures are
    not computed again. Raises `RecordError` when it is not sealed, or cannot be read at all."""
    with opened(path) as (folder, is_published):
        return _verified(folder, is_published, author, authority)._replace(signed=f"{path}: {signature.told(folder)}")


def _verified(
    folder: Path, is_published: bool, author: str = "", authority: Path | None = None, drawn: bool = True
) -> Verified:
    """Without ``drawn``, only the figures are made anew, and not the report of them, unless that was changed."""
    changed = changed_files(folder, is_published)
    said = changed + signature.faults_of_signature(folder, author)
    wrong, told = timestamp.checked(folder, authority)
    said += wrong
    notes = [told] if told else []
    manifest = read_manifest(folder)
    if manifest.format != FORMAT:
        return Verified([*said, _other_format(manifest.format, bool(said))], notes)
    if (folder / fault_records.TABLE).exists():
        return Verified(said + fault_records.differences(folder), notes)
    if not all(map(is_of_derived, changed)):
        said.append("the figures were not computed again, for the raw data are not what was sealed")
        return Verified(said, notes)
    drawn = drawn or bool(changed)
    made = texts(folder) if drawn else {RESULTS: results_text(folder)}
    anew = _figures(folder, manifest, made)
    # Who unpacks a published record with other versions has another report than its author had, and no wrong one.
    written_anew = {f"{name}: {CHANGED}" for name, text in made.items() if _is_content(folder / name, text)}
    kept = [each for each in said if not anew.notes or each not in written_anew]
    return Verified(kept + anew.faults, notes + anew.notes)


def _is_content(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def faults(path: Path) -> list[str]:
    """What is wrong with a sealed record, a sentence each (`verified`)."""
    return verified(path).faults


def changed_files(folder: Path, is_published: bool) -> list[str]:
    """What is not as it was sealed. What is computed from the rest is not in a published record."""
    missing = {f"{name}: missing" for name in DERIVED} if is_published else set()
    return [each for each in differences(folder) if each not in missing]


def _other_format(form: int, changed: bool) -> str:
    age = "old" if form < FORMAT else "newer"
    state = "the files above are not what was sealed" if changed else "every file is as it was sealed"
    return (
        f"{age} format: this record has format {form}, this version of anywire writes and checks {FORMAT}; "
        f"{state}, and the figures were not computed again"
    )


def _figures(folder: Path, manifest: Manifest, made: dict[str, str]) -> Verified:
    """Whether what is computed from the raw data is, made anew, what was sealed."""
    said = list(_results(folder, manifest, made[RESULTS]))
    other = [name for name in made if not is_as_sealed(manifest, name, made[name])]
    if said or not other:
        return Verified(said, [])
    here = libraries()
    sealed = manifest.libraries
    apart = [f"{name} {sealed[name]} → {here.get(name, 'none')}" for name in sealed if sealed[name] != here.get(name)]
    if not apart:
        return Verified([f"{name}: is not what the raw data give" for name in other], [])
    return Verified(
        [],
        [
            f"the figures are those that were sealed, to six digits; {', '.join(other)} made here are not so byte for "
            f"byte, for they were sealed with other versions: {', '.join(apart)}"
        ],
    )


def is_as_sealed(manifest: Manifest, name: str, text: str) -> bool:
    """Whether ``text`` is what the manifest has of that file, or it has none of it."""
    entry = manifest.files.get(name)
    return entry is None or hashlib.sha256(text.encode()).hexdigest() == entry.sha256


def _results(folder: Path, manifest: Manifest, text: str) -> Iterator[str]:
    path = folder / RESULTS
    if not path.is_file():
        if manifest.figures and hash_of_figures(text.encode()) != manifest.figures:
            yield f"{RESULTS}: the raw data give other figures than those that were sealed"
        return
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        yield f"{RESULTS}: cannot be read: {error}"
        return
    yield from (f"{RESULTS}: {each}" for each in figures_that_differ(told, json.loads(text)))


def compared(first: Path, second: Path, target: Path | None = None) -> str:
    """Two records side by side (`side_by_side`), folders or published files, each verified before. Raises `RecordError`
    for a record that was changed since it was sealed, or whose figures do not follow from its raw data. One that was
    never sealed, or has another format, is compared and told as such: its figures are then computed anew where they
    cannot be checked. Raises `ConfigError` where both are the same record."""
    with opened(first) as one, opened(second) as other:
        given = (("A", first, one), ("B", second, other))
        notes = [
            sentence for name, path, (folder, inside) in given for sentence in _checked(name, path, folder, inside)
        ]
        if same := _same(one[0], other[0]):
            raise ConfigError(f"{first} and {second} are the same record{same}: nothing is compared; give two records")
        return side_by_side(one[0], other[0], target, notes, (first, second))


def _same(one: Path, other: Path) -> str:
    """By what two folders have the same record in them, wherever they lie; empty when they do not."""
    hashes = [
        hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        for folder in (one, other)
        if (folder / MANIFEST).exists()
    ]
    if len(hashes) == 2 and hashes[0] == hashes[1]:
        return f", SHA-256 of the manifest {hashes[0]}"
    return ", the same folder" if one.samefile(other) else ""


@contextmanager
def checked(path: Path) -> Iterator[Path]:
    """The folder of the record at ``path``, a folder or a published file. Raises `RecordError` for a record that is not
    what was sealed, or whose figures do not follow from its raw data; one that was never sealed passes."""
    with opened(path) as (folder, is_published):
        _checked("", path, folder, is_published)
        yield folder


def check(path: Path) -> None:
    """As `checked`, for whoever reads the record later."""
    with checked(path):
        pass


def _checked(name: str, path: Path, folder: Path, is_published: bool) -> list[str]:
    records.plan_of(folder)
    if not (folder / MANIFEST).exists():
        return [f"{name} is not sealed, so nothing tells whether it was changed: its run did not get to the end."]
    form = read_manifest(folder).format
    if form != FORMAT:
        said = changed_files(folder, is_published) + signature.faults_of_signature(folder)
        notes = [f"{name} has format {form} and not {FORMAT}: its files are as sealed, its figures computed anew."]
    else:
        found = _verified(folder, is_published, drawn=False)
        said, notes = found.faults, [f"{name}: {each}." for each in found.notes]
    if said:
        raise RecordError(f"{path} is not used, for it is not what was sealed: {shortened(said)}")
    return [*notes, f"{name}: {signature.told(folder)}."]


def shortened(said: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    return "; ".join(said[:_SHOWN]) + (f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else "")
