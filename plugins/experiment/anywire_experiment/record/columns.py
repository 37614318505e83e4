"""Tables of one form in few bytes, from which they come back value for value.

Every column becomes streams of whole numbers. Of each number only what its best prediction leaves is kept: the value
before, that of the client's latest request, or another time of the same request, for these lie close together. What
is left is written byte by byte of equal weight and packed by LZMA. Most of it is the noise of clocks, which nothing
packs.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from anywire_experiment.record.content import UnknownType, as_array, kind_of, parts_of

Ints = NDArray[np.int64]

_PRESET = 9 | lzma.PRESET_EXTREME
_DICTIONARY = 1 << 26
"""Bytes that LZMA looks back at most: more memory is not needed to unpack a stream."""
_DECIMALS = 9
"""Digits behind the point with which a number is still written as a whole one."""
_EXACT = 2**53
_BEFORE = "before"
"""The prediction that is the value of the row before."""
_LATEST = "latest "
"""Before the name of another column: its value in the latest row with the same client."""
_TIME = "_ns"
_FIRST = ("client", "done_ns")
"""Columns by which others are predicted: the client sends its next request when it has the answer."""


class Coding(msgspec.Struct, array_like=True):
    """How one stream of numbers is written: ``unit`` divides all of them, ``by`` is the prediction, empty for none, and
    ``base`` is taken from what is left."""

    unit: int = 1
    by: str = ""
    base: int = 0


class Column(msgspec.Struct, omit_defaults=True):
    """How one column is written. ``decimals``: numbers with a point are whole ones after so many digits, -1 where they
    are written as they are. ``sparse``: which are 0 is a stream of its own."""

    name: str
    kind: str
    codings: list[Coding] = []
    nulls: bool = False
    decimals: int = 0
    sparse: bool = False


class Form(msgspec.Struct):
    """``rows`` of each table, in their order; ``columns`` as tables have them; ``sizes`` of the packed streams."""

    rows: list[int]
    columns: list[Column]
    sizes: list[int]


def packed(tables: Sequence[pa.Table]) -> tuple[Form, bytes]:
    """Of tables with the same columns. Raises `UnknownType`."""
    whole = pa.concat_tables(tables)
    writing = _Writing([each.num_rows for each in tables])
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
    reading = _Reading(form.rows, _streams(form.sizes, data, most_bytes), most_bytes)
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


def _filters(dictionary: int) -> list[dict[str, int]]:
    return [{"id": lzma.FILTER_LZMA2, "preset": _PRESET, "dict_size": dictionary, "lc": 4, "lp": 0, "pb": 0}]


def _streams(sizes: Sequence[int], data: bytes, most_bytes: int) -> Iterator[bytes]:
    start, left = 0, most_bytes
    for size in sizes:
        packer = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(_DICTIONARY))
        try:
            stream = packer.decompress(data[start : start + size], max_length=left + 1)
        except lzma.LZMAError as error:
            raise ValueError(f"a stream of its tables cannot be unpacked: {error}") from error
        start, left = start + size, left - len(stream)
        if left < 0:
            raise ValueError(f"its tables have more than {most_bytes} bytes")
        yield stream


class _Known:
    """The numbers of the columns that were written before, by name, and whose client's each row is."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = list(rows)
        self.tables = np.repeat(np.arange(len(rows)), rows)
        self.columns: dict[str, Ints] = {}

    @property
    def all(self) -> Ints:
        return np.arange(self.tables.size)

    def predicted(self, by: str, rows: Ints, unit: int) -> Ints:
        """Of ``rows``, from other columns."""
        name = by.removeprefix(_LATEST)
        if name not in self.columns:
            raise ValueError(f"there is no column {name!r} before it")
        values: Ints = self.columns[name] // unit
        if not by.startswith(_LATEST):
            return values[rows]
        order = np.lexsort((self.all, self.columns["client"], self.tables))
        latest = np.empty_like(values)
        latest[order] = np.concatenate([values[order][:1], values[order][:-1]])
        return latest[rows]

    def candidates(self, name: str) -> Iterator[str]:
        yield from ("", _BEFORE)
        if name.endswith(_TIME) and "client" in self.columns:
            times = [each for each in self.columns if each.endswith(_TIME)]
            yield from (*times, *(_LATEST + each for each in times))

    def keep(self, name: str, numbers: Ints, coding: Coding) -> None:
        """Times that are 0, not reached, predict others as if they were what was predicted of them."""
        if name.endswith(_TIME) and coding.by in self.columns:
            numbers = np.where(numbers == 0, self.columns[coding.by], numbers)
        self.columns[name] = numbers


class _Writing(_Known):
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
            made.sparse = name.endswith(_TIME) and bool((numbers == 0).any()) and bool(numbers.any())
            rows = self.all
            if made.sparse:
                self._bytes((numbers != 0).astype(np.uint8))
                rows = np.flatnonzero(numbers)
            made.codings = [self._numbers(name, numbers[rows], rows)]
            self.keep(name, numbers, made.codings[0])
        return made

    def _lists(self, name: str, lengths: Ints, values: Ints) -> list[Coding]:
        begins, inside = _beginnings(lengths)
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
        self._bytes(_planes(left - base))
        return Coding(unit, best, base)

    def _left(self, by: str, small: Ints, rows: Ints | None, unit: int) -> Ints:
        if by == "":
            return small
        if by == _BEFORE:
            return np.diff(small, prepend=0)
        assert rows is not None
        return small - self.predicted(by, rows, unit)

    def _bytes(self, stream: NDArray[np.generic]) -> None:
        # To make a large table for a short stream takes longer than to pack it.
        filters = _filters(min(_DICTIONARY, max(4096, stream.nbytes)))
        self.streams.append(lzma.compress(stream.tobytes(), lzma.FORMAT_RAW, filters=filters))


class _Reading(_Known):
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
                if not -1 <= of.decimals <= _DECIMALS:
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
        begins, inside = _beginnings(lengths)
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
        left = _whole(self._bytes(), most) + coding.base
        if coding.by == "":
            small = left
        elif coding.by == _BEFORE:
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


def _beginnings(lengths: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Where in the values of lists each that is not empty begins, and which values are not such a beginning."""
    begins = (np.cumsum(lengths) - lengths)[lengths > 0]
    inside = np.ones(int(lengths.sum()), dtype=bool)
    inside[begins] = False
    return begins, inside


def _decimals(values: NDArray[np.float64]) -> int:
    """Digits behind the point with which every value is exact; -1 for more than `_DECIMALS`."""
    if not (np.abs(values) < _EXACT).all() or bool(np.signbit(values[values == 0]).any()):
        return -1
    for digits in range(_DECIMALS + 1):
        whole = np.rint(values * 10**digits)
        if (np.abs(whole) < _EXACT).all() and (whole / 10**digits == values).all():
            return digits
    return -1


def _planes(numbers: Ints) -> NDArray[np.uint8]:
    """How many bytes each has, then the lowest byte of each, then the next."""
    folded = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    wide = max(1, (int(folded.max()).bit_length() + 7) // 8) if folded.size else 1
    planes = np.ascontiguousarray(folded.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :wide].T)
    return np.concatenate([np.array([wide], np.uint8), planes.ravel()])


def _whole(stream: NDArray[np.uint8], most_bytes: int) -> Ints:
    wide = int(stream[0]) if stream.size else 0
    if not 1 <= wide <= 8 or (stream.size - 1) % wide:
        raise ValueError("a stream of its tables holds no numbers")
    if (stream.size - 1) // wide * 8 > most_bytes:
        raise ValueError(f"the numbers of a stream of its tables have more than {most_bytes} bytes")
    planes = stream[1:].reshape(wide, -1)
    whole = np.zeros((planes.shape[1], 8), np.uint8)
    whole[:, :wide] = planes.T
    folded = whole.view("<u8").ravel().astype(np.uint64)
    return ((folded >> np.uint64(1)).view(np.int64)) ^ -(folded & np.uint64(1)).view(np.int64)
