"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.sizes import read_size, shown_size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (402_965_824, "403 MB"),
        (2 * 10**9, "2 GB"),
        (2_040_000_000, "2.04 GB"),
        (17_990_000_000, "18 GB"),
        (10**15, "1000 TB"),
    ],
)
def test_three_digits_and_a_unit_are_shown(count: int, text: str) -> None:
    assert shown_size(count) == text


@given(st.integers(0, 10**15))
def test_what_is_shown_is_read_as_about_the_same(count: int) -> None:
    read = read_size(shown_size(count))
    assert isinstance(read, int)
    assert abs(read - count) <= count / 150
