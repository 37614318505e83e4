"""A whole record in one small file: for publishing it, and for whoever verifies it or reports on it anew.

    anywire record 1                        a line by which it is known
    8 bytes                                 how long the next part is
    the files, in XZ                        4 bytes, a `Head` of so many in JSON, then each different content once
    the tables                              every column of all samples, as `anywire_experiment.record.columns` has it

What is computed from the rest is not in it, and is made anew; the hashes of all that stay with it. Tables come back
value for value, everything else byte for byte, and so does the manifest, which its author has signed.
"""

from __future__ import annotations

import base64
import hashlib
import lzma
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from anywire_experiment.record.column_form import Form
from anywire_experiment.record.columns import packed, unpacked
from anywire_experiment.record.content import read_table, table_hash
from anywire_experiment.record.manifest import (
    CHANGED,
    DERIVED,
    FORMAT,
    MANIFEST,
    SEALS,
    SIGNATURE,
    TIMESTAMP,
    FileEntry,
    Manifest,
    differences,
    encoded,
    read_manifest,
)
from anywire_experiment.record.storage import RecordError, write_whole

SUFFIX = ".record"
MAGIC = b"anywire record 1\n"
MOST_BYTES = 1024**3
"""Of the files of a record, and of the numbers of its tables; a published one that claims more is refused."""
_CHECK = 12
"""Digits of a content's hash that are kept, to name a file that was changed. The manifest's hash keeps all of them."""


class Tables(msgspec.Struct):
    """Tables with the same columns: their ``names`` in the record, and how they are written, in ``size`` bytes."""

    names: list[str]
    form: Form
    checks: list[str]
    size: int


class Head(msgspec.Struct):
    """``files`` are numbers of contents, of ``sizes`` bytes each. ``manifest`` is the SHA-256 of the manifest that all
    this makes; ``derived`` is its part of what is made anew."""

    sealed: str
    format: int
    manifest: str
    files: dict[str, int]
    sizes: list[int]
    checks: list[str]
    tables: list[Tables]
    derived: dict[str, FileEntry]
    libraries: dict[str, str]
    figures: str
    signature: str = ""
    timestamp: str = ""


def publish(record: Path, target: Path) -> int:
    """Write a sealed record into the file ``target``. Returns its bytes. Raises `RecordError` for a record that is not
    sealed in this format, or not as it was sealed."""
    manifest = read_manifest(record)
    if manifest.format != FORMAT:
        raise RecordError(
            f"{record} has format {manifest.format}, and {FORMAT} is published: write its report anew first, which "
            f"seals it again (`anywire experiment report {record}`)"
        )
    if said := differences(record):
        raise RecordError(f"{record} is not published, for it is not what was sealed: {'; '.join(said[:5])}")
    content = _packed(record, manifest)
    with tempfile.TemporaryDirectory() as again:
        _restore(content, str(target), Path(again))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)
    except OSError as error:
        raise RecordError(f"{target} cannot be written: {error.strerror}") from error
    return len(content)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, bool]]:
    """The folder of the record at ``path``, and whether it was published: then ``path`` is a file, and the folder is
    there only meanwhile. Raises `RecordError` for another file, and for one that was changed."""
    if not path.is_file():
        yield path, False
        return
    with tempfile.TemporaryDirectory(prefix="anywire-record-") as made:
        folder = Path(made) / (path.name.removesuffix(SUFFIX) or path.name)
        folder.mkdir()
        restore(path, folder)
        yield folder, True


def restore(file: Path, folder: Path) -> None:
    """Write the record in ``file``, without what is computed from it, into an empty ``folder``. Raises `RecordError`
    for a file that is no such record, or was changed: then it names what was."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise RecordError(f"{file} is no published record: it has more than {MOST_BYTES} bytes")
        content = file.read_bytes()
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}") from error
    _restore(content, str(file), folder)


def _packed(record: Path, manifest: Manifest) -> bytes:
    head = Head(manifest.sealed, manifest.format, "", {}, [], [], [], {}, manifest.libraries, manifest.figures)
    head.manifest = hashlib.sha256((record / MANIFEST).read_bytes()).hexdigest()
    head.signature, head.timestamp = (_text(record / name) for name in (SIGNATURE, TIMESTAMP))
    head.derived = {name: entry for name, entry in manifest.files.items() if name in DERIVED}
    contents: dict[str, int] = {}
    blobs = []
    # Files of one kind beside each other, for they are much alike.
    for name in sorted(manifest.files, key=lambda each: (PurePosixPath(each).name, each)):
        entry = manifest.files[name]
        if name in DERIVED or entry.rows is not None:
            continue
        if entry.sha256 not in contents:
            contents[entry.sha256] = len(contents)
            blobs.append((record / name).read_bytes())
            head.sizes.append(len(blobs[-1]))
            head.checks.append(entry.sha256[:_CHECK])
        head.files[name] = contents[entry.sha256]
    streams = b""
    for names in _alike(record, [name for name, entry in manifest.files.items() if entry.rows is not None]):
        form, data = packed([read_table(record / name) for name in names])
        checks = [manifest.files[name].sha256[:_CHECK] for name in names]
        head.tables.append(Tables(names, form, checks, len(data)))
        streams += data
    written = msgspec.json.encode(head)
    files = lzma.compress(len(written).to_bytes(4, "big") + written + b"".join(blobs), preset=9 | lzma.PRESET_EXTREME)
    return MAGIC + len(files).to_bytes(8, "big") + files + streams


def _alike(record: Path, names: list[str]) -> list[list[str]]:
    """Tables with the same columns together, in order of their names."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(str(pq.read_schema(record / name).remove_metadata()), []).append(name)
    return list(found.values())


def _restore(content: bytes, file: str, folder: Path) -> None:
    try:
        head, files, tables = _read(content)
        entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
        entries |= {name: FileEntry(table_hash(table), rows=table.num_rows) for name, table in tables.items()}
        listed = dict(sorted((entries | head.derived).items()))
        whole = encoded(Manifest(listed, head.sealed, head.format, head.libraries, head.figures))
        if hashlib.sha256(whole).hexdigest() != head.manifest:
            changed = _changed(head, entries) or ["the list of its files was changed"]
            raise RecordError(f"{file} is not what was sealed: {'; '.join(changed)}")
        for name, text in ((SIGNATURE, head.signature), (TIMESTAMP, head.timestamp)):
            if text:
                (folder / name).write_bytes(base64.b64decode(text, validate=True))
        (folder / MANIFEST).write_bytes(whole)
        for name, data in files.items():
            _place(folder, name).write_bytes(data)
        for name, table in tables.items():
            pq.write_table(table, _place(folder, name), compression="zstd")
    except (ValueError, OverflowError, msgspec.MsgspecError, pa.ArrowException, MemoryError, RecursionError) as error:
        raise RecordError(f"{file} is no published record, or was changed: {error}") from error
    except OSError as error:
        raise RecordError(f"{file} cannot be unpacked into {folder}: {error.strerror}") from error


def _read(content: bytes) -> tuple[Head, dict[str, bytes], dict[str, pa.Table]]:
    """Raises ValueError and others for what is no published record."""
    start = len(MAGIC) + 8
    if not content.startswith(MAGIC):
        raise ValueError(f"it does not begin with {MAGIC.decode().strip()!r}")
    end = start + int.from_bytes(content[len(MAGIC) : start], "big")
    files = _decompressed(content[start:end])
    length = 4 + int.from_bytes(files[:4], "big")
    head = msgspec.json.decode(files[4:length], type=Head)
    if len(head.checks) != len(head.sizes):
        raise ValueError("its files are not as many as they are said to be")
    contents = []
    for size in head.sizes:
        if not 0 <= size <= len(files) - length:
            raise ValueError("a file is shorter than it is said to be")
        contents.append(files[length : length + size])
        length += size
    if len(files) != length or any(not 0 <= number < len(contents) for number in head.files.values()):
        raise ValueError("its files are not as long as they are said to be")
    if sum(head.sizes[number] for number in head.files.values()) > MOST_BYTES:
        raise ValueError(f"its files have more than {MOST_BYTES} bytes")
    tables: dict[str, pa.Table] = {}
    left = MOST_BYTES
    for each in head.tables:
        if len({*each.names}) != len(each.form.rows) or len(each.checks) != len(each.names):
            raise ValueError("its tables are not as many as they are said to be")
        rows = unpacked(each.form, content[end : end + each.size], left)
        left -= sum(table.nbytes for table in rows)
        tables |= dict(zip(each.names, rows, strict=True))
        end += each.size
    if end != len(content):
        raise ValueError("there is something behind its tables")
    return head, {name: contents[number] for name, number in head.files.items()}, tables


def _decompressed(data: bytes) -> bytes:
    packer = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        files = packer.decompress(data, max_length=MOST_BYTES)
    except lzma.LZMAError as error:
        raise ValueError(f"its files cannot be unpacked: {error}") from error
    if not packer.eof or packer.unused_data:
        raise ValueError("its files are cut off, or too large")
    return files


def _place(folder: Path, name: str) -> Path:
    """Where a file of a stranger's record is written: below ``folder`` and nowhere else."""
    path = PurePosixPath(name)
    parts = path.parts
    strange = path.is_absolute() or not parts or ".." in parts or "\\" in name or "\0" in name or str(path) != name
    if strange or name in (*SEALS, *DERIVED):
        raise ValueError(f"a record has no file {name!r}")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _changed(head: Head, entries: dict[str, FileEntry]) -> list[str]:
    checks = {name: head.checks[number] for name, number in head.files.items()}
    checks |= {name: check for each in head.tables for name, check in zip(each.names, each.checks, strict=True)}
    return sorted(f"{name}: {CHANGED}" for name, entry in entries.items() if entry.sha256[:_CHECK] != checks[name])


def _text(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except FileNotFoundError:
        return ""
