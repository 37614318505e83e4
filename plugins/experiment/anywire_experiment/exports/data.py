"""The tables of a record's data (`anywire_experiment.frames`) as Parquet and CSV."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from anywire_experiment.frames import NAMES, Tables

Kind = Literal["parquet", "csv"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def files(tables: Tables, kinds: Collection[Kind]) -> Iterator[tuple[str, bytes]]:
    """Names and contents."""
    for name, table in zip(NAMES, tables, strict=True):
        for kind in kinds:
            target = io.BytesIO()
            if kind == "parquet":
                pq.write_table(table, target, compression="zstd")
            else:
                pc_csv.write_csv(_flat(table), target)
            yield f"data/{name}.{kind}", target.getvalue()


def _flat(table: pa.Table) -> pa.Table:
    """With lists as numbers with spaces between them, which a CSV can hold."""
    for at, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = table.column(at).cast(pa.list_(pa.string()))
            table = table.set_column(at, pa.field(field.name, pa.string()), pc.binary_join(texts, " "))
    return table
