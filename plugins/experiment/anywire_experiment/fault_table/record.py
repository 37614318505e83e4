"""The record of a fault table: a folder with every cell, the table that follows from them, and a seal.

environment.json        the machine and the installation
faults.json             the table
README.md               the same for people
cells/FAULT/TRANSPORT/  what was seen (`observed.Observed`), configurations, logs
manifest.json           the hash of every file
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from anywire_experiment.fault_table import observed, pages
from anywire_experiment.fault_table.observed import Observed
from anywire_experiment.fault_table.setting import Setting
from anywire_experiment.fault_table.verdict import Row, judged
from anywire_experiment.faults.catalogue import BY_NAME, FAULTS, TRANSPORTS
from anywire_experiment.record import manifest
from anywire_experiment.record.environment import Environment, environment
from anywire_experiment.record.sources import Source
from anywire_experiment.record.storage import RecordError, pretty, write_whole

TABLE, PAGE, ENVIRONMENT, CELLS = "faults.json", "README.md", "environment.json", "cells"


class Table(msgspec.Struct):
    """``settings`` are those that were not as this table has them usually, ``streams`` how many each cell asked,
    ``engine`` that of the agents where one was chosen."""

    rows: list[Row]
    streams: int
    settings: list[str] = []
    engine: str = ""


def create(folder: Path, invocation: Sequence[str], sources: dict[str, Source]) -> None:
    """Begin a record. Raises `RecordError` when the folder is not empty or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RecordError(f"{folder} is not empty: choose another folder with --out")
        here = environment(invocation, sources)
        write_whole(folder / ENVIRONMENT, pretty(msgspec.to_builtins(here)))
    except OSError as error:
        raise RecordError(f"the record {folder} cannot be written: {error.strerror}") from error


def cell_folder(record: Path, fault: str, transport: str) -> Path:
    return record / CELLS / fault / transport


def conclude(folder: Path, setting: Setting) -> Table:
    """Write the table and its page, and seal the record. Raises `RecordError`."""
    try:
        table = Table(rows_of(folder), setting.streams, list(setting.changes), setting.engine)
        write_whole(folder / TABLE, pretty(msgspec.to_builtins(table)))
        where = msgspec.json.decode((folder / ENVIRONMENT).read_bytes(), type=Environment)
        write_whole(folder / PAGE, pages.markdown(table.rows, setting, where).encode())
        manifest.seal(folder)
    except OSError as error:
        raise RecordError(f"the record {folder} cannot be written: {error.strerror}") from error
    return table


def rows_of(folder: Path) -> list[Row]:
    """The table, computed from the cells, in the order of the catalogue. Raises `RecordError`."""
    return [judged(BY_NAME[each.fault], each) for each in _cells(folder)]


def differences(folder: Path) -> list[str]:
    """Where the table that the record has does not follow from its cells, a sentence each. Raises `RecordError`."""
    try:
        told = msgspec.json.decode((folder / TABLE).read_bytes(), type=Table).rows
    except (OSError, msgspec.DecodeError) as error:
        return [f"{TABLE}: cannot be read: {error}"]
    found = {(each.fault, each.transport): each for each in rows_of(folder)}
    named = {(each.fault, each.transport): each for each in told}
    return [
        f"{TABLE}: {fault} over {transport} does not follow from its cell"
        for fault, transport in sorted({*found, *named})
        if found.get((fault, transport)) != named.get((fault, transport))
    ]


def _cells(folder: Path) -> list[Observed]:
    order = [each.name for each in FAULTS]
    paths = sorted(folder.glob(f"{CELLS}/*/*/{observed.CELL}"))
    try:
        cells = [observed.read(path.parent) for path in paths]
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"a cell of {folder} cannot be read: {error}") from error
    if unknown := next((each.fault for each in cells if each.fault not in BY_NAME), None):
        raise RecordError(f"{folder} has a fault {unknown!r}, which this version does not know")
    transports = [*TRANSPORTS, *(each.transport for each in cells)]
    return sorted(cells, key=lambda each: (order.index(each.fault), transports.index(each.transport)))
