"""A record read with its figures, after it was checked: where every use of one outside of its own folder begins."""

from __future__ import annotations

from pathlib import Path

import msgspec

from anywire_experiment import outcome
from anywire_experiment.analysis.analyse import analysed
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.record.folder import RESULTS
from anywire_experiment.record.manifest import FORMAT, MANIFEST, read_manifest


def verified(folder: Path) -> tuple[RawData, Results]:
    """What was measured, and what it comes to. Raises `RecordError` for a record that is not what was sealed, and for
    none. Of one that was never sealed, or is of another format, the figures are computed anew."""
    outcome.check(folder)
    raw = RawData(folder)
    if (folder / MANIFEST).exists() and read_manifest(folder).format == FORMAT:
        # The check has found these figures to follow from the raw data.
        return raw, msgspec.json.decode((folder / RESULTS).read_bytes(), type=Results)
    return raw, analysed(raw)
