"""What a finished record comes to: its results, its report and its seal, and whether all that still holds."""

from __future__ import annotations

import json
from pathlib import Path

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.analyse import differences as figures_that_differ
from anywire_experiment.record import folder as records
from anywire_experiment.record.folder import DERIVED, RESULTS, Record
from anywire_experiment.record.manifest import FORMAT, differences, read_manifest
from anywire_experiment.record.storage import RecordError, writing
from anywire_experiment.report import write


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
    try:
        told = json.loads((folder / RESULTS).read_bytes())
    except (OSError, ValueError) as error:
        return [*said, f"{RESULTS}: cannot be read: {error}"]
    if any(each.startswith(("cells/", records.PLAN)) for each in said):
        return [*said, "the figures were not computed again, for the raw data are not what was sealed"]
    return said + [f"{RESULTS}: {each}" for each in figures_that_differ(told, analyse(folder))]


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
