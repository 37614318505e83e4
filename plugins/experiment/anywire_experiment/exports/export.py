"""Everything that a record has, as files of the kinds that somebody wants."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from anywire.errors import ConfigError
from anywire.near import nearest
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.exports import data, figures, tables
from anywire_experiment.frames import tables_of
from anywire_experiment.outcome.checked_record import checked
from anywire_experiment.record.manifest import MANIFEST
from anywire_experiment.record.signature import told
from anywire_experiment.record.storage import RecordError

Format = Literal["parquet", "csv", "latex", "svg", "pdf"]
FORMATS: tuple[Format, ...] = get_args(Format)
ORIGIN = "origin.json"

Files = Iterator[tuple[str, bytes]]
"""Names, with folders, and contents."""


def chosen(said: Sequence[str]) -> list[Format]:
    """The formats that somebody names, each perhaps several with commas between; all where none is named. Raises
    `ConfigError`."""
    names = [name for each in said for part in each.split(",") if (name := part.strip())]
    if unknown := [each for each in names if each not in FORMATS]:
        near = nearest(unknown[0], FORMATS)
        hint = f"did you mean {near!r}? " if near else ""
        raise ConfigError(f"--format {unknown[0]}: {hint}known formats: {', '.join(FORMATS)}")
    return [each for each in FORMATS if each in names] or list(FORMATS)


def export(folder: Path, out: Path, formats: Collection[Format] = FORMATS) -> list[Path]:
    """Write a record, a folder or a published file, into ``out``, which is new or empty. Returns the files written.
    The same record gives the same bytes, with the same versions of the libraries.

    Raises `RecordError` for a record that is not what was sealed, for none, and where ``out`` cannot be written.
    """
    with checked(folder) as (raw, results):
        return _written(raw, results, out, formats)


def _written(raw: RawData, results: Results, out: Path, formats: Collection[Format]) -> list[Path]:
    written: dict[Path, str] = {}
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RecordError(f"{out} is not an empty folder: choose another with --out, or remove it")
        for name, content in _files(raw, results, formats):
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written[path] = hashlib.sha256(content).hexdigest()
        origin = out / ORIGIN
        origin.parent.mkdir(parents=True, exist_ok=True)
        hashes = {path.relative_to(out).as_posix(): digest for path, digest in written.items()}
        origin.write_text(json.dumps(_origin(raw, results, hashes), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{out} cannot be written: {error.strerror}") from error
    return [*written, origin]


def _files(raw: RawData, results: Results, formats: Collection[Format]) -> Files:
    kinds: list[data.Kind] = [each for each in data.KINDS if each in formats]
    if kinds:
        yield from data.files(tables_of(raw, results), kinds)
    if "csv" in formats or "latex" in formats:
        yield from tables.files(raw, results, csv="csv" in formats, latex="latex" in formats)
    vectors: list[figures.Kind] = [each for each in figures.KINDS if each in formats]
    if vectors:
        yield from figures.files(raw, results, vectors)


def _origin(raw: RawData, results: Results, hashes: Mapping[str, str]) -> dict[str, object]:
    """From what these files were made, for whoever finds them alone."""
    return {
        "experiment": results.name,
        "question": results.question,
        "raw_data_sha256": raw.fingerprint,
        "sealed": (raw.folder / MANIFEST).exists(),
        "signature": told(raw.folder),
        "files": hashes,
    }
