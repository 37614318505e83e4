"""The page of the tables that a record has, from their schema."""

from __future__ import annotations

from collections.abc import Iterator

from anywire_experiment.frames.schema import LEVEL, SCHEMAS, Column
from tables import row, table

_ABOUT = {
    "requests": "One row per request of every whole cell, warm-up included.",
    "cells": "One row per cell and workload; a failed cell in which none ran has one.",
    "blocks": "One row per block, arm, workload and metric: what every figure and comparison starts from.",
    "figures": "One row per arm, workload and metric.",
    "comparisons": "One row per comparison of the plan.",
}

INTRODUCTION = f"""\
The tables of a record, as `anywire_experiment.frames.load` gives them and `anywire experiment export` writes them
([how to use a record](../how-to/use-a-record.md)). A column is null where what it tells does not exist. Every table
also has, as its last columns, the level of each factor of the plan: `{LEVEL}transport`. Times in `ns, monotonic` are
CLOCK_MONOTONIC of one boot of the machine, and compare across the processes of a record; 0: not reached. Parquet
files and Arrow tables have unit and meaning in the metadata of each column.
"""


def record_tables_page(note: str) -> str:
    return "\n".join(["# Tables of a record", "", note, "", INTRODUCTION, *_tables()])


def _tables() -> Iterator[str]:
    for name, columns in SCHEMAS.items():
        yield f"## `{name}`"
        yield ""
        yield _ABOUT[name]
        yield ""
        yield from table(("column", "type", "unit", "meaning"), (_row(each) for each in columns))
        yield ""


def _row(column: Column) -> str:
    return row(f"`{column.name}`", f"`{column.type}`", column.unit, column.meaning)
