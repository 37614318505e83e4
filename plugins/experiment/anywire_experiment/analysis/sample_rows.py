"""The samples of a cell as rows, read, and what each row says by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from anywire.errors import DeadlineExceeded
from anywire_experiment.record.cells import SAMPLES_FILE
from anywire_experiment.record.content import read_table
from anywire_experiment.record.samples import ADDED, SAMPLES

Floats = NDArray[np.float64]


def read_samples(folder: Path) -> pa.Table:
    """A cell's rows. Raises OSError, or ValueError when they are no samples."""
    table = read_table(folder / SAMPLES_FILE)
    for name in ADDED:
        if name not in table.column_names:
            field = SAMPLES.field(name)
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    if set(table.column_names) == set(SAMPLES.names):
        table = table.select(SAMPLES.names)
    if not table.schema.equals(SAMPLES):
        raise ValueError(f"{folder / SAMPLES_FILE} has other columns than samples have")
    if lacking := [name for name in table.column_names if name not in ADDED and table[name].null_count]:
        raise ValueError(f"{folder / SAMPLES_FILE} has rows without {lacking[0]}")
    return table


def column(table: pa.Table, name: str) -> NDArray[np.int64]:
    values: NDArray[np.int64] = table[name].to_numpy()
    return values


def waits_ms(rows: pa.Table) -> Floats:
    """How long each task waited for its sending, and one that was given up in the queue for its deadline until then: to
    leave those out would make an order look good by which many are never sent. Not of a task that was refused."""
    received, sent = column(rows, "stage_received_ns"), column(rows, "stage_selected_ns")
    given_up = pc.equal(rows["outcome"], DeadlineExceeded.code).to_numpy().astype(bool)
    took: Floats = (np.where(sent > 0, sent, column(rows, "done_ns")) - received) / 1e6
    waits: Floats = took[(received > 0) & ((sent > 0) | given_up)]
    return waits


def in_time(rows: pa.Table) -> NDArray[np.bool_]:
    """Of each request whether its whole answer came within its deadline, counted from its intended time; where none was
    told, whether it came."""
    deadlines = np.nan_to_num(rows["deadline_s"].to_numpy().astype(np.float64))
    took = (column(rows, "done_ns") - column(rows, "intended_ns")) / 1e9
    whole = pc.equal(rows["outcome"], "ok").to_numpy().astype(bool)
    kept: NDArray[np.bool_] = whole & ((deadlines == 0) | (took <= deadlines))
    return kept
