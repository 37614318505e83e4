"""A record read with its figures, after it was checked: where every use of one outside of its own folder begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from anywire_experiment.analysis.analyse import analysed
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.outcome import verification
from anywire_experiment.record.compact import opened
from anywire_experiment.record.manifest import FORMAT, MANIFEST, RESULTS, read_manifest


@contextmanager
def checked(path: Path) -> Iterator[tuple[RawData, Results]]:
    """What was measured, and what it comes to, of the record at ``path``, a folder or a published file, for as long as
    the context lasts. Raises `RecordError` for a record that is not what was sealed, and for none. Of one that was
    never sealed, was published, or is of another format, the figures are computed anew."""
    with verification.checked(path) as folder:
        yield _read(folder)


@contextmanager
def read(path: Path) -> Iterator[tuple[RawData, Results]]:
    """As `checked`, of a record that this very command has checked already."""
    with opened(path) as (folder, _):
        yield _read(folder)


def _read(folder: Path) -> tuple[RawData, Results]:
    raw = RawData(folder)
    if (folder / RESULTS).exists() and (folder / MANIFEST).exists() and read_manifest(folder).format == FORMAT:
        # The check has found these figures to follow from the raw data.
        return raw, msgspec.json.decode((folder / RESULTS).read_bytes(), type=Results)
    return raw, analysed(raw)
