"""What a table says, apart from how a file holds it: the same rows have the same hash, whatever wrote them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

SUFFIX = ".parquet"


class UnknownType(ValueError):
    """A column is of a type that records do not have."""


def read_table(path: Path) -> pa.Table:
    """Raises OSError, or ValueError when it is no table."""
    try:
        # No threads, and no data set of several files (whose import takes pandas with it): each is read in a blink.
        with pq.ParquetFile(path) as file:
            return file.read(use_threads=False)
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"{path} is no table: {error}") from error


def table_hash(table: pa.Table) -> str:
    """SHA-256 of names, types and values, in the order of columns and rows. Raises `UnknownType`."""
    whole = hashlib.sha256()
    for name, chunked in zip(table.column_names, table.columns, strict=True):
        column = as_array(chunked)
        whole.update(f"{name} {kind_of(column.type)} {len(column)}\n".encode())
        for part in parts_of(column):
            whole.update(part.tobytes())
    return whole.hexdigest()


def kind_of(given: pa.DataType) -> str:
    """A type's name, whatever a version of the library calls the entries of its lists. Raises `UnknownType`."""
    if pa.types.is_list(given) and pa.types.is_int64(given.value_type):
        return "times"
    kinds = {pa.int64(): "int64", pa.int32(): "int32", pa.float64(): "double", pa.string(): "string"}
    if found := "bool" if pa.types.is_boolean(given) else kinds.get(given):
        return found
    raise UnknownType(f"a column of type {given} is not one that records have")


def as_array(column: pa.ChunkedArray) -> pa.Array:
    """In one piece that begins at its buffers' beginnings."""
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = combined.chunk(0) if combined.num_chunks else pa.array([], column.type)
    return pa.concat_arrays([combined]) if combined.offset else combined


def parts_of(column: pa.Array) -> list[NDArray[np.generic]]:
    """Which rows are not null, and the values, nulls as 0: one part of numbers, two of texts and lists, whose first are
    the lengths."""
    valid = np.asarray(column.is_valid()).astype(np.uint8)
    return [valid, *values_of(column)]


def values_of(column: pa.Array) -> list[NDArray[np.generic]]:
    """Raises `UnknownType`."""
    match kind_of(column.type):
        case "bool":
            return [np.asarray(pc.fill_null(column, False)).astype(np.uint8)]
        case "double":
            return [np.asarray(pc.fill_null(column, 0.0)).astype("<f8")]
        case "string":
            texts = [each.encode() for each in pc.fill_null(column, "").to_pylist()]
            lengths = np.fromiter(map(len, texts), dtype="<i8", count=len(texts))
            return [lengths, np.frombuffer(b"".join(texts), np.uint8)]
        case "times":
            lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0)).astype("<i8")
            return [lengths, np.asarray(column.flatten()).astype("<i8")]
        case _:
            return [np.asarray(pc.fill_null(column, 0)).astype("<i8")]
