"""What a finished record comes to: its results, its report and its seal, and whether all that still holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from anywire_experiment import record as records
from anywire_experiment.analysis import analyse
from anywire_experiment.manifest import differences
from anywire_experiment.record import DERIVED, RESULTS, Record
from anywire_experiment.report import write
from anywire_experiment.storage import RecordError, writing

_SAME = 1e-9
"""Ratio up to which two figures are one: another machine's vector instructions may round the last bits otherwise."""


def faults(folder: Path) -> list[str]:
    """What is wrong with a sealed record, a sentence each: files that changed, figures that the raw data do not give.
    Raises `RecordError` when it is not sealed."""
    said = differences(folder)
    try:
        told = json.loads((folder / RESULTS).read_bytes())
    except (OSError, ValueError) as error:
        return [*said, f"{RESULTS}: cannot be read: {error}"]
    if any(each.startswith(("cells/", records.PLAN)) for each in said):
        return [*said, "the figures were not computed again, for the raw data are not what was sealed"]
    return said + [f"{RESULTS}: {each}" for each in _unequal("", told, _results(folder))]


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


def _results(folder: Path) -> Any:
    """As JSON would hold them."""
    return json.loads(json.dumps(msgspec.to_builtins(analyse(folder), str_keys=True)))


def _unequal(path: str, told: Any, computed: Any) -> Iterator[str]:
    """Where two JSON trees differ."""
    if isinstance(told, dict) and isinstance(computed, dict):
        for key in sorted({*told, *computed}):
            at = f"{path}.{key}" if path else key
            if key not in told or key not in computed:
                yield f"{at}: {'not computed from the raw data' if key in told else 'missing'}"
            else:
                yield from _unequal(at, told[key], computed[key])
    elif isinstance(told, list) and isinstance(computed, list) and len(told) == len(computed):
        for number, (each, other) in enumerate(zip(told, computed, strict=True)):
            yield from _unequal(f"{path}[{number}]", each, other)
    elif not _equal(told, computed):
        yield f"{path}: it says {told!r}, the raw data give {computed!r}"


def _equal(told: Any, computed: Any) -> bool:
    if isinstance(told, float | int) and isinstance(computed, float | int) and not isinstance(told, bool):
        return math.isclose(told, computed, rel_tol=_SAME)
    return bool(told == computed)
