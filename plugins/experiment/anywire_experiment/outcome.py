"""What a finished record comes to: its results, its report and its seal, and whether all that still holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from anywire.errors import ConfigError
from anywire.identities.identity_proof import Identity
from anywire_experiment.analysis.analyse import differences as figures_that_differ
from anywire_experiment.fault_table import record as fault_records
from anywire_experiment.record import folder as records
from anywire_experiment.record import signature, timestamp
from anywire_experiment.record.compact import opened, publish, restore
from anywire_experiment.record.figures import hash_of_figures, libraries
from anywire_experiment.record.folder import Record
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
from anywire_experiment.record.storage import RecordError, writing
from anywire_experiment.report import results_text, side_by_side, texts, write

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
    changed = _changed(folder, is_published)
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


def _changed(folder: Path, is_published: bool) -> list[str]:
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
    other = [name for name in made if not _is_as_sealed(manifest, name, made[name])]
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


def _is_as_sealed(manifest: Manifest, name: str, text: str) -> bool:
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
        said = _changed(folder, is_published) + signature.faults_of_signature(folder)
        notes = [f"{name} has format {form} and not {FORMAT}: its files are as sealed, its figures computed anew."]
    else:
        found = _verified(folder, is_published, drawn=False)
        said, notes = found.faults, [f"{name}: {each}." for each in found.notes]
    if said:
        raise RecordError(f"{path} is not used, for it is not what was sealed: {_short(said)}")
    return [*notes, f"{name}: {signature.told(folder)}."]


def _short(said: Sequence[str]) -> str:
    return "; ".join(said[:_SHOWN]) + (f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else "")


def conclude(folder: Path, identity: Identity | None = None) -> int:
    """Compute the results of a complete record, report on it, seal it, and sign that with ``identity``. Returns how
    many cells failed."""
    with Record.open(folder) as record, writing(folder):
        if not record.sealed:
            write(folder)
            record.seal()
            if identity is not None:
                signature.sign(folder, identity)
    return sum(cell.state == "failed" for cell in records.cells_of(folder))


class Written(NamedTuple):
    """Files that were written, and what of them was not as it was sealed, a sentence each."""

    paths: list[Path]
    notes: list[str]


def conclude_again(path: Path, out: Path | None = None, identity: Identity | None = None) -> Written:
    """Write results and report anew, of a record that may still be incomplete; a sealed one is sealed again if its raw
    data are those that were sealed, and signed with ``identity``. With ``out`` they are written into that folder, and
    the record stays as it is. Raises `RecordError`, also for a record that another has signed, when nothing is said
    of ``out``: to seal it again would end the signature."""
    with opened(path) as (folder, is_published):
        records.plan_of(folder)
        is_sealed = (folder / MANIFEST).exists()
        changed = _changed(folder, is_published) if is_sealed else []
        if raw := [each for each in changed if not is_of_derived(each)]:
            raise RecordError(f"{path} is not what was sealed: {_short(raw)}")
        if is_sealed and (said := signature.faults_of_signature(folder)):
            raise RecordError(f"{path} is not what was signed: {_short(said)}")
        if out is not None:
            return Written(write(folder, out), [f"not used: {each}" for each in changed])
        if is_published:
            raise RecordError(f"{path} is a published record: say with --out where its report is to be written")
        with Record.open(folder) as record, writing(folder):
            by = signature.read_signature(folder) if is_sealed else None
            if by is not None and (identity is None or by.fingerprint != identity.fingerprint):
                made = texts(folder)
                if any(not _is_as_sealed(read_manifest(folder), name, made[name]) for name in made):
                    raise RecordError(
                        f"{folder} is signed by {by.fingerprint}, and this report is not the one that was signed: "
                        "say with --out where it is to be written, and the record stays as it is"
                    )
            written = write(folder)
            if is_sealed:
                record.seal()
                if identity is not None:
                    signature.sign(folder, identity)
        return Written(written, [f"written anew: {each}" for each in changed])


def sign(folder: Path, identity: Identity, stamped: Path | None = None) -> list[str]:
    """Sign a sealed record that is as it was sealed, and add the timestamp in the file ``stamped``. Returns what was
    done, a sentence each. Raises `RecordError`."""
    if said := differences(folder):
        raise RecordError(f"{folder} is not signed, for it is not what was sealed: {_short(said)}")
    with Record.open(folder), writing(folder):
        by = signature.read_signature(folder)
        if by is not None and by.fingerprint != identity.fingerprint and signature.is_valid(folder, by):
            raise RecordError(f"{folder} is signed by {by.fingerprint} already; a copy of it can be signed anew")
        done = [] if not signature.sign(folder, identity) else [f"{folder}: {signature.told(folder)}"]
        if stamped is not None:
            done.append(f"{folder}: a timestamp over its manifest of {timestamp.add(folder, stamped)}")
    return done or [f"{folder} was {signature.told(folder)}"]


def signed(folder: Path) -> None:
    """Sign a record that was sealed just now, where this user has a key."""
    if (identity := signature.author(None)) is not None:
        with writing(folder):
            signature.sign(folder, identity)


def published(folder: Path, target: Path) -> tuple[int, str]:
    """Write a record that is as it was sealed, and whose figures follow, into the file ``target``. Returns its bytes,
    and who has signed it. Raises `RecordError`."""
    form = read_manifest(folder).format
    if form == FORMAT and (said := faults(folder)):
        raise RecordError(f"{folder} is not published, for it is not what was sealed: {_short(said)}")
    return publish(folder, target), signature.told(folder)


def unpacked(file: Path, target: Path) -> list[str]:
    """Make the record in a published ``file`` a folder again, what is computed from it too. Returns what of that is not
    byte for byte what was sealed, a sentence each. Raises `RecordError`."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise RecordError(f"{target} is not empty: choose another folder with --out")
        restore(file, target)
        if (target / records.PLAN).exists():
            write(target)
    except OSError as error:
        raise RecordError(f"{target} cannot be written: {error.strerror}") from error
    return differences(target)
