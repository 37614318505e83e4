"""The seal of a record: the hash of every file in it, and what no longer agrees with that."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from anywire_experiment.record.content import SUFFIX, read_table, table_hash
from anywire_experiment.record.figures import hash_of_figures, libraries
from anywire_experiment.record.storage import RecordError, pretty, write_whole

FORMAT = 5
"""1: cells without the bytes on the wire, environments without a protocol version. 2: environments without sources,
figures whose typical value and intervals were others. 4: tables of samples sealed as files and not by what they say,
times in ns, environments that say less of the code."""
MANIFEST, SIGNATURE, TIMESTAMP = "manifest.json", "signature.json", "timestamp.tsr"
SEALS = (MANIFEST, SIGNATURE, TIMESTAMP)
"""What seals a record, and is not itself sealed."""
RESULTS = "results.json"
DERIVED = (RESULTS, "report.html", "report.md", "results.csv", "results.tex")
"""What is computed from the rest, and may be written anew."""

CHANGED = "changed since it was sealed"
_NO_FILE = "is no plain file, and a record holds nothing else"


class FileEntry(msgspec.Struct, omit_defaults=True):
    """``sha256`` is of the file's bytes, of which there are so many. Of a table it is of its ``rows`` with all they
    say (`anywire_experiment.record.content.table_hash`), whatever wrote the file; None for any other file."""

    sha256: str
    bytes: int = 0
    rows: int | None = None


class Manifest(msgspec.Struct):
    """``libraries`` are those that have computed results and report, by name with their versions; ``figures`` is the
    hash of the results to six digits (`anywire_experiment.record.figures`), empty without results."""

    files: dict[str, FileEntry]
    sealed: str
    format: int = FORMAT
    libraries: dict[str, str] = {}
    figures: str = ""


def seal(record: Path) -> None:
    """Hash every file; from now on `differences` notices any change. A manifest that still agrees stays as it is, for
    it may be signed; with another one, signature and timestamp of the former are removed. Raises `RecordError` for
    what is no plain file."""
    found = {}
    for name, path in _entries(record):
        if not _is_plain(path):
            raise RecordError(f"{record} cannot be sealed: {name} {_NO_FILE}")
        found[name] = entry_of(path)
    if (record / MANIFEST).exists():
        try:
            before = read_manifest(record)
        except RecordError:
            before = Manifest({}, "")
        if before.format == FORMAT and before.files == found:
            return
    for name in (SIGNATURE, TIMESTAMP):
        (record / name).unlink(missing_ok=True)
    figures = hash_of_figures((record / RESULTS).read_bytes()) if RESULTS in found else ""
    sealed = datetime.now(UTC).isoformat(timespec="milliseconds")
    write_whole(record / MANIFEST, encoded(Manifest(found, sealed, FORMAT, libraries() if figures else {}, figures)))


def encoded(manifest: Manifest) -> bytes:
    """As it stands in its file, and is signed."""
    return pretty(msgspec.to_builtins(manifest))


def differences(record: Path) -> list[str]:
    """What is not as it was when the record was sealed, a sentence each. Raises `RecordError` when it never was."""
    manifest = read_manifest(record)
    found = dict(_entries(record))
    said = [f"{_shown(name)}: missing" for name in manifest.files if name not in found]
    for name, path in found.items():
        if not _is_plain(path):
            said.append(f"{_shown(name)}: {_NO_FILE}")
        elif name not in manifest.files:
            said.append(f"{_shown(name)}: not in the manifest")
        elif not _agrees(path, manifest.files[name]):
            said.append(f"{_shown(name)}: {CHANGED}")
    return sorted(said)


def is_of_derived(difference: str) -> bool:
    """Whether one of the `differences` is of a file that is computed from the rest."""
    return difference.rpartition(": ")[0] in DERIVED


def read_manifest(record: Path) -> Manifest:
    """Raises `RecordError` when the record was never sealed, or there is none."""
    if not record.exists():
        raise RecordError(f"there is no record {record}")
    path = record / MANIFEST
    if record.is_file():
        raise RecordError(f"{record} is a file: `anywire experiment unpack` makes a folder of a published record")
    if not record.exists():
        raise RecordError(f"there is no record {record}")
    if not path.is_file() or path.is_symlink():
        done = len(list(record.glob("cells/b*/*/cell.json")))
        raise RecordError(
            f"{record} is not sealed ({done} cells are there): its run did not get to the end; run the same command "
            "again"
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise RecordError(f"{path} is no manifest: {error}") from error


def fingerprint(record: Path) -> str:
    """One hash for everything that was not computed from something else in the record."""
    whole = hashlib.sha256()
    for name, path in _entries(record):
        # Hidden files are of a run under way.
        if name not in DERIVED and not name.startswith(".") and _is_plain(path):
            whole.update(f"{name} {entry_of(path).sha256}\n".encode(errors="surrogatepass"))
    return whole.hexdigest()


def entry_of(path: Path) -> FileEntry:
    """Raises OSError."""
    if path.suffix == SUFFIX:
        try:
            table = read_table(path)
            return FileEntry(table_hash(table), rows=table.num_rows)
        except ValueError:
            pass  # no table, or one of other types: sealed as any other file
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _agrees(path: Path, entry: FileEntry) -> bool:
    try:
        if entry.rows is not None:
            return entry_of(path) == entry
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    except OSError:
        return False


def _entries(record: Path) -> Iterator[tuple[str, Path]]:
    """Everything in a record but folders and its seals, in order of names. Links are not followed."""
    found = []
    for folder, folders, names in os.walk(record):
        links = [each for each in folders if (Path(folder) / each).is_symlink()]
        found += [Path(folder) / each for each in (*names, *links)]
    by_name = {path.relative_to(record).as_posix(): path for path in found}
    yield from sorted((name, path) for name, path in by_name.items() if name not in SEALS)


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _shown(name: str) -> str:
    """The name of a stranger's file, as a terminal can show it."""
    return name if name.isprintable() else ascii(name)
