"""The seal of a record: the hash of every file in it, and what no longer agrees with that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from anywire_experiment.record.storage import RecordError, pretty, write_whole

FORMAT = 4
"""1: cells without the bytes on the wire, environments without a protocol version. 2: environments without sources,
figures whose typical value and intervals were others."""
MANIFEST = "manifest.json"


class FileEntry(msgspec.Struct):
    sha256: str
    bytes: int


class Manifest(msgspec.Struct):
    files: dict[str, FileEntry]
    sealed: str
    format: int = FORMAT


def seal(record: Path) -> None:
    """Hash every file; from now on `differences` notices any change."""
    sealed = datetime.now(UTC).isoformat(timespec="milliseconds")
    manifest = Manifest({name: _entry(path) for name, path in _files(record)}, sealed)
    write_whole(record / MANIFEST, pretty(msgspec.to_builtins(manifest)))


def differences(record: Path) -> list[str]:
    """What is not as it was when the record was sealed, a sentence each. Raises `RecordError` when it never was."""
    manifest = read_manifest(record)
    found = dict(_files(record))
    said = [f"{name}: missing" for name in manifest.files if name not in found]
    said += [f"{name}: not in the manifest" for name in found if name not in manifest.files]
    said += [
        f"{name}: changed since it was sealed"
        for name, entry in manifest.files.items()
        if name in found and _entry(found[name]) != entry
    ]
    return sorted(said)


def read_manifest(record: Path) -> Manifest:
    """Raises `RecordError` when the record was never sealed."""
    path = record / MANIFEST
    if not path.exists():
        done = len(list(record.glob("cells/b*/*/cell.json")))
        raise RecordError(
            f"{record} is not sealed ({done} cells are there): its run did not get to the end; run the same command "
            "again"
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.DecodeError as error:
        raise RecordError(f"{path} is no manifest: {error}") from error


def _files(record: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(record.rglob("*")):
        name = path.relative_to(record).as_posix()
        if path.is_file() and name != MANIFEST:
            yield name, path


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
