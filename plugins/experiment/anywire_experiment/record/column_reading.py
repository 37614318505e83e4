"""Columns of tables, read from the streams that `column_writing` has made; whatever else they are given, they say what
is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anywire_experiment.record.column_bytes import numbers_of
from anywire_experiment.record.column_form import BEFORE, DECIMALS, Coding, Column, Ints, Known, beginnings
from anywire_experiment.record.content import UnknownType


class Reading(Known):
    """Columns read, in the order in which they were written, from the streams in theirs."""

    def __init__(self, rows: Sequence[int], streams: Iterator[bytes], most_bytes: int) -> None:
        super().__init__(rows)
        self._streams = streams
        self.left = most_bytes
        """Bytes that the columns to come may have."""

    def column(self, of: Column) -> pa.Array:
        count = self.tables.size
        nulls = ~self._mask(count) if of.nulls else None
        codings = iter(of.codings)
        match of.kind:
            case "string":
                return self._texts(of, codings, nulls)
            case "bool":
                return pa.array(self._mask(count), mask=nulls)
            case "double":
                if not -1 <= of.decimals <= DECIMALS:
                    raise ValueError(f"the numbers of {of.name} have {of.decimals} decimals")
                if of.decimals < 0:
                    planes = self._bytes().reshape(8, -1)
                    return pa.array(np.ascontiguousarray(planes.T).view(np.float64).ravel(), mask=nulls)
                return pa.array(self._numbers(next(codings), self.all) / 10**of.decimals, pa.float64(), mask=nulls)
            case "times":
                return self._lists(of, codings, nulls)
            case "int64" | "int32":
                numbers = np.zeros(count, dtype=np.int64)
                rows = np.flatnonzero(self._mask(count)) if of.sparse else self.all
                coding = next(codings)
                numbers[rows] = self._numbers(coding, rows)
                self.keep(of.name, numbers, coding)
                return pa.array(numbers, pa.int64(), mask=nulls).cast(pa.int64() if of.kind == "int64" else pa.int32())
        raise UnknownType(f"a column of type {of.kind} is not one that records have")

    def _texts(self, of: Column, codings: Iterator[Coding], nulls: NDArray[np.bool_] | None) -> pa.Array:
        text, lengths = self._bytes().tobytes(), self._numbers(next(codings))
        codes = self._numbers(next(codings), self.all)
        if (lengths.size and lengths.min() < 0) or lengths.sum() != len(text):
            raise ValueError(f"the texts of {of.name} are not as long as they are said to be")
        if codes.size and not 0 <= codes.min() <= codes.max() < lengths.size:
            raise ValueError(f"a text of {of.name} is missing")
        if codes.size and lengths[codes].sum() > self.left:
            raise ValueError(f"the texts of {of.name} have more than {self.left} bytes")
        ends = np.cumsum(np.concatenate([[0], lengths])).tolist()
        known = np.array([text[start:end].decode() for start, end in pairwise(ends)], dtype=object)
        return pa.array(known[codes] if codes.size else [], pa.string(), mask=nulls)

    def _lists(self, of: Column, codings: Iterator[Coding], nulls: NDArray[np.bool_] | None) -> pa.Array:
        lengths = self._numbers(next(codings), self.all)
        if lengths.size and (lengths.min() < 0 or lengths.astype(np.float64).sum() * 8 > self.left):
            raise ValueError(f"the lists of {of.name} are not as long as they are said to be")
        rows = np.flatnonzero(lengths)
        begins, inside = beginnings(lengths)
        values = np.zeros(int(lengths.sum()), dtype=np.int64)
        firsts, gaps = self._numbers(next(codings), rows), self._numbers(next(codings))
        if begins.size != firsts.size or gaps.size != int(inside.sum()):
            raise ValueError(f"the lists of {of.name} are not as long as they are said to be")
        values[inside] = gaps
        sums = np.cumsum(values)
        values = sums + np.repeat(firsts - sums[begins], lengths[rows])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        mask = None if nulls is None else pa.array(nulls)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=mask)

    def _numbers(self, coding: Coding, rows: Ints | None = None) -> Ints:
        # No more than there are rows, before they take eight bytes each.
        most = self.left if rows is None else min(self.left, 8 * rows.size)
        left = numbers_of(self._bytes(), most) + coding.base
        if coding.by == "":
            small = left
        elif coding.by == BEFORE:
            small = np.cumsum(left)
        elif rows is None or left.size != rows.size:
            raise ValueError("a stream of its tables has another length than it is said to have")
        else:
            small = left + self.predicted(coding.by, rows, coding.unit)
        if rows is not None and small.size != rows.size:
            raise ValueError("a stream of its tables has another length than it is said to have")
        return small * coding.unit

    def _mask(self, count: int) -> NDArray[np.bool_]:
        found = self._bytes()
        if found.size != count:
            raise ValueError("a stream of its tables has another length than it is said to have")
        return found.astype(bool)

    def _bytes(self) -> NDArray[np.uint8]:
        try:
            return np.frombuffer(next(self._streams), np.uint8)
        except StopIteration:
            raise ValueError("a stream of its tables is missing") from None
