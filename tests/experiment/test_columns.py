"""Tables in few bytes come back value for value, and bytes that are none do no harm."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire_experiment.record.column_form import Coding, Form
from anywire_experiment.record.columns import packed, unpacked
from anywire_experiment.record.content import UnknownType, table_hash
from anywire_experiment.record.precision import PIECE_UNIT_NS, UNIT_NS, measurable

MANY = 1 << 24
INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 100)
TIMES = st.just(0) | st.integers(1, 2**50)
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "workload": (pa.string(), st.text(max_size=5) | st.sampled_from(["a", "b\n", "", "é"])),
    "client": (pa.int32(), st.integers(-(2**31), 2**31 - 1) | st.integers(0, 3)),
    "done_ns": (pa.int64(), TIMES),
    "sent_ns": (pa.int64(), TIMES),
    "stage_sent_ns": (pa.int64(), TIMES | st.none()),
    "index": (pa.int64(), INTS | st.none()),
    "deadline_s": (pa.float64(), st.floats() | st.sampled_from([0.5, 1.25]) | st.none()),
    "right": (pa.bool_(), st.booleans() | st.none()),
    "piece_ns": (pa.list_(pa.int64()), st.lists(st.integers(0, 2**50), max_size=4) | st.none()),
}


@st.composite
def tables(draw: st.DrawFn) -> list[pa.Table]:
    names = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, unique=True))
    made = []
    for rows in draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)):
        columns = {
            name: pa.array(draw(st.lists(VALUES[name][1], min_size=rows, max_size=rows)), VALUES[name][0])
            for name in names
        }
        made.append(pa.table(columns))
    return made


def same(one: Any, other: Any) -> bool:
    """Equal, also where a number is none, and with the sign of zero."""
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@settings(max_examples=examples(60), deadline=None)
@given(tables())
def test_every_value_comes_back(given_tables: list[pa.Table]) -> None:
    form, data = packed(given_tables)
    found = unpacked(form, data, MANY)
    assert len(found) == len(given_tables)
    for one, other in zip(given_tables, found, strict=True):
        assert one.schema.types == other.schema.types
        assert one.column_names == other.column_names
        for name in one.column_names:
            pairs = zip(one[name].to_pylist(), other[name].to_pylist(), strict=True)
            assert all(same(*pair) for pair in pairs), name
        assert table_hash(one) == table_hash(other)


@settings(max_examples=examples(60), deadline=None)
@given(tables(), st.data())
def test_bytes_that_were_changed_are_refused_or_say_something_else(found: list[pa.Table], data: st.DataObject) -> None:
    form, packed_bytes = packed(found)
    at = data.draw(st.integers(0, len(packed_bytes) - 1))
    changed = bytearray(packed_bytes)
    changed[at] ^= data.draw(st.integers(1, 255))
    with suppress(ValueError, OverflowError, pa.ArrowException):
        unpacked(form, bytes(changed), MANY)


def test_the_hash_is_of_every_value_and_of_nothing_else() -> None:
    table = pa.table({"a": pa.array([1, 2, None]), "b": pa.array(["x", "", None])})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert table_hash(chunked) == table_hash(table)
    for name, values in (("a", [1, 2, 0]), ("a", [1, 3, None]), ("b", ["", "x", None]), ("b", ["x", None, None])):
        changed = table.set_column(table.column_names.index(name), name, pa.array(values))
        assert table_hash(changed) != table_hash(table), (name, values)
    assert table_hash(table.select(["b", "a"])) != table_hash(table)
    with pytest.raises(UnknownType):
        table_hash(pa.table({"a": pa.array([[1.5]])}))


def test_too_much_is_refused_before_it_is_there() -> None:
    form, data = packed([pa.table({"a": np.zeros(1000, dtype=np.int64)})])
    with pytest.raises(ValueError, match="more than 100 bytes"):
        unpacked(form, data, 100)
    form.rows = [2**60]
    with pytest.raises(ValueError, match="more than"):
        unpacked(form, data, MANY)


def test_a_number_too_large_to_have_decimals_comes_back() -> None:
    table = pa.table({"deadline_s": pa.array([1.7976931348623157e299, 0.5, math.inf])})
    (found,) = unpacked(*packed([table]), MANY)
    assert found.equals(table)


def test_little_does_not_become_much_column_by_column() -> None:
    """A text that many rows have in every column, and numbers of one byte each, take far more than their streams."""
    texts = pa.table({f"c{at}": pa.array(["x" * 10_000] * 50) for at in range(20)})
    form, data = packed([texts])
    with pytest.raises(ValueError, match="more than"):
        unpacked(form, data, 1_000_000)
    form, data = packed([pa.table({"piece_ns": pa.array([[0] * 100_000], pa.list_(pa.int64()))})])
    form.columns = [msgspec.structs.replace(form.columns[0], name="a", kind="int64", codings=[Coding()])]
    form.sizes, data = form.sizes[-1:], data[-form.sizes[-1] :]
    with pytest.raises(ValueError, match="the numbers of a stream of its tables have more than 8 bytes"):
        unpacked(form, data, 500_000)


def test_times_are_cut_to_what_can_be_measured_and_keep_their_order() -> None:
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(10**12, 10**12 + 10**7, (50, 4)), axis=1)
    spans = zip(times[:, 1].tolist(), times[:, 3].tolist(), strict=True)
    pieces = [[first, *np.sort(rng.integers(first, last + 1, 4)).tolist()] for first, last in spans]
    given_table = pa.table(
        {
            "intended_ns": times[:, 0],
            "first_ns": times[:, 1],
            "stage_sent_ns": pa.array([None, *times[1:, 2].tolist()], pa.int64()),
            "done_ns": times[:, 3],
            "index": pa.array(range(50)),
            "piece_ns": pa.array([None, [], *pieces[2:]], pa.list_(pa.int64())),
        }
    )
    cut = measurable(given_table)
    assert cut.schema == given_table.schema
    assert cut["index"].equals(given_table["index"])
    for before, after in zip(given_table.to_pylist(), cut.to_pylist(), strict=True):
        for name in ("intended_ns", "first_ns", "stage_sent_ns", "done_ns"):
            if before[name] is None:
                assert after[name] is None
            else:
                assert 0 <= before[name] - after[name] < UNIT_NS
        if before["piece_ns"]:
            assert after["piece_ns"][0] == after["first_ns"]
            assert after["piece_ns"] == sorted(after["piece_ns"])
            assert after["piece_ns"][-1] <= after["done_ns"]
            apart = np.abs(np.subtract(before["piece_ns"], after["piece_ns"]))
            assert apart.max() < PIECE_UNIT_NS + UNIT_NS
        else:
            assert after["piece_ns"] == before["piece_ns"]


CODINGS = st.tuples(
    st.integers(-2, 2**70) | st.just(1),
    st.sampled_from(["", "before", "done_ns", "latest done_ns", "latest x", "nothing", "client"]),
    st.integers(-(2**70), 2**70) | st.just(0),
)


@settings(max_examples=examples(80), deadline=None)
@given(tables(), st.data())
def test_a_form_of_a_stranger_is_refused_and_does_no_harm(found: list[pa.Table], data: st.DataObject) -> None:
    form, packed_bytes = packed(found)
    tree = msgspec.to_builtins(form)
    column = data.draw(st.sampled_from(tree["columns"]))
    what = data.draw(st.sampled_from(["codings", "kind", "decimals", "nulls", "sparse", "name", "rows", "sizes"]))
    match what:
        case "codings":
            column["codings"] = data.draw(st.lists(CODINGS.map(list), max_size=3))
        case "kind":
            column["kind"] = data.draw(
                st.sampled_from(["int64", "int32", "string", "bool", "double", "times", "other"])
            )
        case "decimals":
            column["decimals"] = data.draw(st.integers(-3, 12))
        case "nulls" | "sparse":
            column[what] = not column.get(what, False)
        case "name":
            column["name"] = data.draw(st.sampled_from(["done_ns", "client", "other"]))
        case _:
            tree[what] = data.draw(st.lists(st.integers(-1, 2**62) | st.integers(0, 9), max_size=4))
    with suppress(ValueError, OverflowError, pa.ArrowException, msgspec.MsgspecError):
        unpacked(msgspec.convert(tree, Form), packed_bytes, MANY)
