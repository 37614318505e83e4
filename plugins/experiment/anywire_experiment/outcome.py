"""What a finished record comes to: its results, its report and its seal, and whether all that still holds."""

from __future__ import annotations

import json
from pathlib import Path

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.analyse import differences as figures_that_differ
from anywire_experiment.fault_table import record as fault_records
from anywire_experiment.record import folder as records
from anywire_experiment.record.folder import DERIVED, RESULTS, Record
from anywire_experiment.record.manifest import FORMAT, MANIFEST, differences, read_manifest
from anywire_experiment.record.storage import RecordError, writing
from anywire_experiment.report import side_by_side, write

_SHOWN = 5
"""Faults of a record that are told where it is refused."""


def faults(folder: Path) -> list[str]:
    """What is wrong with a sealed record, a sentence each: files that changed, figures that the raw data do not give.
    A record of another format is told as such: its figures are not computed again. Raises `RecordError` when it is not
    sealed."""
    said = differences(folder)
    form = read_manifest(folder).format
    if form != FORMAT:
        age = "old" if form < FORMAT else "newer"
        state = "the files above are not what was sealed" if said else "every file is as it was sealed"
        return [
            *said,
            f"{age} format: this record has format {form}, this version of anywire writes and checks {FORMAT}; "
            f"{state}, and the figures were not computed again",
        ]
    if (folder / fault_records.TABLE).exists():
        return said + fault_records.differences(folder)
    try:
        told = json.loads((folder / RESULTS).read_bytes())
    except (OSError, ValueError) as error:
        return [*said, f"{RESULTS}: cannot be read: {error}"]
    if any(each.startswith(("cells/", records.PLAN)) for each in said):
        return [*said, "the figures were not computed again, for the raw data are not what was sealed"]
    return said + [f"{RESULTS}: {each}" for each in figures_that_differ(told, analyse(folder))]


def compared(first: Path, second: Path, target: Path | None = None) -> str:
    """Two records side by side (`side_by_side`), each verified before. Raises `RecordError` for a record that was
    changed since it was sealed, or whose figures do not follow from its raw data. One that was never sealed, or has
    another format, is compared and told as such: its figures are then computed anew where they cannot be checked."""
    notes = [sentence for name, folder in (("A", first), ("B", second)) for sentence in _checked(name, folder)]
    return side_by_side(first, second, target, notes)


def check(folder: Path) -> None:
    """Raises `RecordError` for a record that is not what was sealed; one that was never sealed passes."""
    _checked("", folder)


def _checked(name: str, folder: Path) -> list[str]:
    records.plan_of(folder)
    if not (folder / MANIFEST).exists():
        return [f"{name} is not sealed, so nothing tells whether it was changed: its run did not get to the end."]
    form = read_manifest(folder).format
    if said := faults(folder) if form == FORMAT else differences(folder):
        shown = "; ".join(said[:_SHOWN]) + (f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else "")
        raise RecordError(f"{folder} is not used, for it is not what was sealed: {shown}")
    if form != FORMAT:
        return [f"{name} has format {form} and not {FORMAT}: its files are as sealed, its figures are computed anew."]
    return []


def conclude(folder: Path) -> int:
    """Compute the results of a complete record, report on it and seal it. Returns how many cells failed."""
    with Record.open(folder) as record, writing(folder):
        if not record.sealed:
            write(folder)
            record.seal()
    return sum(cell.state == "failed" for cell in records.cells_of(folder))


def conclude_again(folder: Path) -> list[Path]:
    """Write results and report anew, of a record that may still be incomplete; a sealed one is sealed again if its raw
    data are those that were sealed. Returns the files written. Raises `RecordError`."""
    records.plan_of(folder)
    with Record.open(folder) as record, writing(folder):
        if record.sealed and (changed := [each for each in differences(folder) if not each.startswith(DERIVED)]):
            raise RecordError(f"{folder} is not what was sealed: {'; '.join(changed)}")
        written = write(folder)
        if record.sealed:
            record.seal()
    return written
