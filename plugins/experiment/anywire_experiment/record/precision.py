"""How precisely a record keeps times: to 1 µs. What is finer is noise of clocks and wake-ups, which would make a
published record three times as large and no figure better."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anywire_experiment.record.content import as_array, values_of

UNIT_NS = 1000
"""Of every time, so that what came first still does."""
PIECE_UNIT_NS = 10_000
"""Of a stream's pieces, from its first one on: a fifth of what makes two moments of them
(`anywire_experiment.analysis.stream_arrivals.MOMENT_NS`)."""


def measurable(samples: pa.Table) -> pa.Table:
    """``samples`` with every time cut to its unit."""
    for at, field in enumerate(samples.schema):
        if not field.name.endswith("_ns"):
            continue
        if pa.types.is_list(field.type):
            cut = _pieces(samples, field)
        elif pa.types.is_integer(field.type):
            column = as_array(samples[field.name])
            times = values_of(column)[0].astype(np.int64)
            cut = pa.array(times // UNIT_NS * UNIT_NS, mask=~np.asarray(column.is_valid())).cast(field.type)
        else:
            continue
        samples = samples.set_column(at, field, cut)
    return samples


def _pieces(samples: pa.Table, field: pa.Field) -> pa.Array:
    """Each as far from the first piece as its unit tells, the first one in the unit of other times."""
    column = as_array(samples[field.name])
    lengths, times = (each.astype(np.int64) for each in values_of(column))
    begins = (np.cumsum(lengths) - lengths)[lengths > 0]
    first = np.repeat(times[begins], lengths[lengths > 0])
    cut = first // UNIT_NS * UNIT_NS + (times - first) // PIECE_UNIT_NS * PIECE_UNIT_NS
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = pa.array(~np.asarray(column.is_valid()))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(cut), mask=mask).cast(field.type)
