"""A head that is like the one before is not read again, and means what it would have meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.known_head import MOST_BYTES, MOST_DIGITS, KnownHead

NAMES = st.sampled_from([b"content-length", b"Content-Length", b"CONTENT-LENGTH"])
LINES = st.lists(st.sampled_from([b"host: x", b"date: now", b"x-content-length: 7", b"a:", b"b: 12"]), max_size=4)


def head(length: bytes, before: list[bytes], after: list[bytes], name: bytes = b"content-length") -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", *before, name + b": " + length, *after, b"", b""])


@given(NAMES, LINES, LINES, st.integers(0, 10**9), st.integers(0, 10**9))
def test_another_length_is_read_and_nothing_else(
    name: bytes, before: list[bytes], after: list[bytes], length: int, other: int
) -> None:
    known = KnownHead[str]()
    raw = head(b"%d" % length, before, after, name)
    assert known.length_of(raw) is None
    known.remember(raw, length, "read")
    assert known.length_of(raw) == length
    assert known.length_of(head(b"%d" % other, before, after, name)) == other
    assert known.length_of(head(b"%d" % other, [*before, b"new: 1"], after, name)) is None
    assert known.length_of(head(b"%d" % other, before, [*after, b"new: 1"], name)) is None
    assert known.read == "read"


@pytest.mark.parametrize("length", [b"", b"+5", b"-5", b"05", b"0x5", b"5 5", b"5, 5", b" 5", b"\xb2", b"9" * 30])
def test_what_is_no_plain_length_is_to_be_read(length: bytes) -> None:
    known = KnownHead[str]()
    known.remember(head(b"450", [], [b"host: x"]), 450, "read")
    assert known.length_of(head(length, [], [b"host: x"])) is None
    assert known.length_of(head(b"9" * MOST_DIGITS, [], [b"host: x"])) == 10**MOST_DIGITS - 1


def test_a_head_without_a_length_or_with_one_that_was_read_otherwise_stands_for_itself() -> None:
    known = KnownHead[str]()
    known.remember(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 0, "get")
    assert known.length_of(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == 0
    assert known.length_of(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n") is None
    known.remember(head(b"5", [], []), 6, "not this one")
    known.remember(head(b"5", [b"a: " + b"x" * MOST_BYTES], []), 5, "nor this one")
    assert known.read == "get"
    assert known.length_of(b"") is None
