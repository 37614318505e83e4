"""Columns of tables, written as streams of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from anywire_experiment.record.column_bytes import packed_stream, planes_of
from anywire_experiment.record.column_form import BEFORE, DECIMALS, TIME, Coding, Column, Ints, Known, beginnings
from anywire_experiment.record.content import kind_of, parts_of

_EXACT = 2**53


class Writing(Known):
    """Columns written, one after the other; ``streams`` are what they have become."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(rows)
        self.streams: list[bytes] = []

    def column(self, name: str, array: pa.Array) -> Column:
        valid, *parts = parts_of(array)
        made = Column(name, kind_of(array.type), nulls=not valid.all())
        if made.nulls:
            self._bytes(valid)
        if made.kind == "string":
            coded = pc.fill_null(array, "").dictionary_encode()
            _, lengths, text = parts_of(coded.dictionary)
            codes = np.asarray(coded.indices).astype(np.int64)
            self._bytes(text)
            made.codings = [self._numbers("", lengths.astype(np.int64)), self._numbers("", codes)]
        elif made.kind == "times":
            made.codings = self._lists(name, parts[0].astype(np.int64), parts[1].astype(np.int64))
        elif made.kind == "bool":
            self._bytes(parts[0])
        elif made.kind == "double":
            values = parts[0].astype(np.float64)
            made.decimals = _decimals(values)
            if made.decimals < 0:
                self._bytes(np.ascontiguousarray(values.view(np.uint8).reshape(-1, 8).T))
            else:
                made.codings = [self._numbers("", np.rint(values * 10**made.decimals).astype(np.int64))]
        else:
            numbers = parts[0].astype(np.int64)
            made.sparse = name.endswith(TIME) and bool((numbers == 0).any()) and bool(numbers.any())
            rows = self.all
            if made.sparse:
                self._bytes((numbers != 0).astype(np.uint8))
                rows = np.flatnonzero(numbers)
            made.codings = [self._numbers(name, numbers[rows], rows)]
            self.keep(name, numbers, made.codings[0])
        return made

    def _lists(self, name: str, lengths: Ints, values: Ints) -> list[Coding]:
        begins, inside = beginnings(lengths)
        gaps = np.diff(values, prepend=0)[inside]
        return [
            self._numbers("", lengths),
            self._numbers(name, values[begins], np.flatnonzero(lengths)),
            self._numbers("", gaps),
        ]

    def _numbers(self, name: str, values: Ints, rows: Ints | None = None) -> Coding:
        unit = max(1, int(np.gcd.reduce(values))) if values.size else 1
        small = values // unit
        best, base, left = "", 0, small
        if values.size:
            cost = np.inf
            for by in self.candidates(name):
                tried = self._left(by, small, rows, unit)
                tried_base = int(np.median(tried))
                if (bits := float(np.log2(1.0 + np.abs((tried - tried_base).astype(np.float64))).sum())) < cost:
                    best, base, left, cost = by, tried_base, tried, bits
        self._bytes(planes_of(left - base))
        return Coding(unit, best, base)

    def _left(self, by: str, small: Ints, rows: Ints | None, unit: int) -> Ints:
        if by == "":
            return small
        if by == BEFORE:
            return np.diff(small, prepend=0)
        assert rows is not None
        return small - self.predicted(by, rows, unit)

    def _bytes(self, stream: NDArray[np.generic]) -> None:
        self.streams.append(packed_stream(stream))


def _decimals(values: NDArray[np.float64]) -> int:
    """Digits behind the point with which every value is exact; -1 for more than `DECIMALS`."""
    if not (np.abs(values) < _EXACT).all() or bool(np.signbit(values[values == 0]).any()):
        return -1
    for digits in range(DECIMALS + 1):
        whole = np.rint(values * 10**digits)
        if (np.abs(whole) < _EXACT).all() and (whole / 10**digits == values).all():
            return digits
    return -1
