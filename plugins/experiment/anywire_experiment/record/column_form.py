"""How the columns of tables are written: the streams of each, and what their numbers are predicted by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

DECIMALS = 9
"""Digits behind the point with which a number is still written as a whole one."""
BEFORE = "before"
"""The prediction that is the value of the row before."""
LATEST = "latest "
"""Before the name of another column: its value in the latest row with the same client."""
TIME = "_ns"


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


class Known:
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
        name = by.removeprefix(LATEST)
        if name not in self.columns:
            raise ValueError(f"there is no column {name!r} before it")
        values: Ints = self.columns[name] // unit
        if not by.startswith(LATEST):
            return values[rows]
        order = np.lexsort((self.all, self.columns["client"], self.tables))
        latest = np.empty_like(values)
        latest[order] = np.concatenate([values[order][:1], values[order][:-1]])
        return latest[rows]

    def candidates(self, name: str) -> Iterator[str]:
        yield from ("", BEFORE)
        if name.endswith(TIME) and "client" in self.columns:
            times = [each for each in self.columns if each.endswith(TIME)]
            yield from (*times, *(LATEST + each for each in times))

    def keep(self, name: str, numbers: Ints, coding: Coding) -> None:
        """Times that are 0, not reached, predict others as if they were what was predicted of them."""
        if name.endswith(TIME) and coding.by in self.columns:
            numbers = np.where(numbers == 0, self.columns[coding.by], numbers)
        self.columns[name] = numbers


def beginnings(lengths: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Where in the values of lists each that is not empty begins, and which values are not such a beginning."""
    begins = (np.cumsum(lengths) - lengths)[lengths > 0]
    inside = np.ones(int(lengths.sum()), dtype=bool)
    inside[begins] = False
    return begins, inside
