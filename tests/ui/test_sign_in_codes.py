"""Codes that sign a browser in: each gives its own key, once, while it counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anywire_service_ui.sign_in import MOST, MOST_OF_ONE, SECONDS, SignInCodes

steps = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.text(min_size=1)),
        st.tuples(st.just("take"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.floats(0, 2 * SECONDS)),
    )
)


@given(steps)
def test_each_code_gives_its_key_once_and_only_in_time(steps: list[tuple[str, object]]) -> None:
    now = 0.0
    codes = SignInCodes(lambda: now)
    made: list[tuple[str, str, float]] = []
    used: set[str] = set()
    for what, value in steps:
        if what == "new":
            key = f"{value}{len(made)}"
            made.append((codes.new(key), key, now))
        elif what == "wait":
            assert isinstance(value, float)
            now += value
        elif made:
            assert isinstance(value, int)
            code, key, since = made[value % len(made)]
            counts = code not in used and now - since < SECONDS
            assert codes.take(code) == (key if counts else "")
            assert codes.take(code) == ""
            used.add(code)
        assert len(codes) <= MOST


def test_codes_differ_and_are_bounded() -> None:
    codes = SignInCodes(lambda: 0.0)
    made = [codes.new(str(number)) for number in range(MOST + 10)]
    assert len(set(made)) == len(made)
    assert min(map(len, made)) >= 32
    assert len(codes) == MOST
    assert codes.take(made[0]) == ""
    assert codes.take(made[-1]) == str(MOST + 9)
    assert codes.take("nothing") == ""


def test_one_key_ends_no_codes_of_others() -> None:
    codes = SignInCodes(lambda: 0.0)
    other = codes.new("other")
    made = [codes.new("flood") for _ in range(3 * MOST)]
    assert len(codes) == 1 + MOST_OF_ONE
    assert codes.take(other) == "other"
    assert codes.take(made[-1]) == "flood"
    assert codes.take(made[-MOST_OF_ONE - 1]) == ""
