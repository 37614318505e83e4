"""A finished record concluded: its results and report written, sealed, signed, and published as one file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from anywire.identities.identity_proof import Identity
from anywire_experiment.outcome.verification import changed_files, faults, is_as_sealed, shortened
from anywire_experiment.record import folder as records
from anywire_experiment.record import signature, timestamp
from anywire_experiment.record.compact import opened, publish, restore
from anywire_experiment.record.folder import Record
from anywire_experiment.record.manifest import FORMAT, MANIFEST, differences, is_of_derived, read_manifest
from anywire_experiment.record.storage import RecordError, writing
from anywire_experiment.report import texts, write


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
        changed = changed_files(folder, is_published) if is_sealed else []
        if raw := [each for each in changed if not is_of_derived(each)]:
            raise RecordError(f"{path} is not what was sealed: {shortened(raw)}")
        if is_sealed and (said := signature.faults_of_signature(folder)):
            raise RecordError(f"{path} is not what was signed: {shortened(said)}")
        if out is not None:
            return Written(write(folder, out), [f"not used: {each}" for each in changed])
        if is_published:
            raise RecordError(f"{path} is a published record: say with --out where its report is to be written")
        with Record.open(folder) as record, writing(folder):
            by = signature.read_signature(folder) if is_sealed else None
            if by is not None and (identity is None or by.fingerprint != identity.fingerprint):
                made = texts(folder)
                if any(not is_as_sealed(read_manifest(folder), name, made[name]) for name in made):
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
        raise RecordError(f"{folder} is not signed, for it is not what was sealed: {shortened(said)}")
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
        raise RecordError(f"{folder} is not published, for it is not what was sealed: {shortened(said)}")
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
