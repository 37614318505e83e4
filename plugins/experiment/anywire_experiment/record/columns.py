"""Tables of one form in few bytes, from which they come back value for value.

Every column becomes streams of whole numbers. Of each number only what its best prediction leaves is kept: the value
before, that of the client's latest request, or another time of the same request, for these lie close together. What
is left is written byte by byte of equal weight and packed by LZMA. Most of it is the noise of clocks, which nothing
packs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from anywire_experiment.record.column_bytes import streams_of
from anywire_experiment.record.column_form import Form
from anywire_experiment.record.column_reading import Reading
from anywire_experiment.record.column_writing import Writing
from anywire_experiment.record.content import as_array

_FIRST = ("client", "done_ns")
"""Columns by which others are predicted: the client sends its next request when it has the answer."""


def packed(tables: Sequence[pa.Table]) -> tuple[Form, bytes]:
    """Of tables with the same columns. Raises `UnknownType`."""
    whole = pa.concat_tables(tables)
    writing = Writing([each.num_rows for each in tables])
    columns = {name: writing.column(name, as_array(whole[name])) for name in _ordered(whole.column_names)}
    form = Form(writing.rows, [columns[name] for name in whole.column_names], [len(each) for each in writing.streams])
    return form, b"".join(writing.streams)


def unpacked(form: Form, data: bytes, most_bytes: int) -> list[pa.Table]:
    """What `packed` was given. Raises ValueError for data that are not of this form, or are more than ``most_bytes``
    when unpacked."""
    if any(each < 0 for each in (*form.rows, *form.sizes)) or sum(form.sizes) != len(data):
        raise ValueError("the streams of its tables are not as long as they are said to be")
    if sum(form.rows) * max(1, len(form.columns)) * 8 > most_bytes:
        raise ValueError(f"its tables have more than {most_bytes} bytes")
    if any(coding.unit < 1 for each in form.columns for coding in each.codings):
        raise ValueError("a unit of its tables is none")
    reading = Reading(form.rows, streams_of(form.sizes, data, most_bytes), most_bytes)
    by_name = {each.name: each for each in form.columns}
    arrays: dict[str, pa.Array] = {}
    try:
        for name in _ordered([each.name for each in form.columns]):
            arrays[name] = reading.column(by_name[name])
            reading.left -= arrays[name].nbytes
    except (StopIteration, LookupError) as error:
        raise ValueError(f"its tables lack what their form speaks of: {error!r}") from error
    whole = pa.table({each.name: arrays[each.name] for each in form.columns})
    ends = np.cumsum([0, *form.rows]).tolist()
    return [whole.slice(start, end - start) for start, end in pairwise(ends)]


def _ordered(names: Sequence[str]) -> list[str]:
    return [*(each for each in _FIRST if each in names), *(each for each in names if each not in _FIRST)]
