"""Large bodies: the same JSON in ASCII, an outline of it, and a bound for whatever makes decoding slow."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire import large_body
from anywire.demand import read_demand
from anywire.errors import InvalidRequest, PayloadTooLarge
from anywire.large_body import FILLER_BYTES, LONG_BYTES, MAX_CONTAINERS, MAX_MEMBERS, MAX_VALUES, read_large_body

LIMIT = 32 * 1024 * 1024


def read(body: bytes | str, limit: int = LIMIT) -> large_body.LargeBody:
    return asyncio.run(read_large_body(body, limit))


_texts = st.text(max_size=60) | st.text(alphabet='\\"/aé😀\n\u2028', max_size=60)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """A value without its strings, but for names."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return "" if isinstance(value, str) else value


@settings(max_examples=examples(150))
@given(_values, st.booleans(), st.booleans(), st.integers(1, 40))
def test_the_text_is_the_same_json_and_the_outline_has_its_shape(
    value: Any, escaped: bool, spaced: bool, piece: int
) -> None:
    body = json.dumps(value, ensure_ascii=escaped, indent=1 if spaced else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_body, "PIECE_BYTES", piece)
        patch.setattr(large_body, "KEPT_BYTES", 20)
        patch.setattr(large_body, "LONG_BYTES", 70)
        for form in (body, body.encode()):
            found = read(form)
            assert found.text.isascii()
            assert json.loads(found.text) == value
            assert shape(json.loads(found.outline)) == shape(value)
            if escaped:
                assert found.text == body


@settings(max_examples=examples(100))
@given(st.binary(max_size=60), st.integers(1, 20))
def test_what_is_no_json_is_refused_or_no_json_in_the_outline_either(body: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_body, "PIECE_BYTES", piece)
        try:
            found = read(body)
        except InvalidRequest:
            with pytest.raises(ValueError):  # noqa: PT011
                json.loads(body.decode(), strict=True)
            return
        assert found.text.encode() == body or not body.isascii()


def chat(content: str, more: str = "") -> str:
    return f'{{"model":"m","messages":[{{"role":"user","content":{content}}}]{more}}}'


def test_a_photo_leaves_an_outline_with_everything_that_is_looked_at() -> None:
    photo = '[{"type":"text","text":"what is this? 😀"},{"type":"image_url","image_url":{"url":"data:%s"}}]'
    body = chat(photo % ("A" * 20_000_000), ',"max_tokens":7,"tools":[{"type":"function","function":{"name":"f"}}]')
    found = read(body.encode())
    assert json.loads(found.text) == json.loads(body)
    assert len(found.outline) < large_body.KEPT_BYTES + 2 * large_body.PIECE_BYTES
    demand = read_demand(found.outline)
    assert (demand.needs, demand.max_tokens) == (("tools", "vision"), 7)


def test_outlines_are_equal_only_for_equal_bodies() -> None:
    bodies = [chat(json.dumps("A" * 400_000 + end + "B" * 400_000)) for end in ("x", "y")]
    first, second = (read(body).outline for body in bodies)
    assert first != second
    assert first == read(bodies[0]).outline
    assert len(first) == len(second)


def test_what_stands_for_a_long_string_is_longer_than_any_field_may_be() -> None:
    fields = [
        chat('"x"', f',"metadata":{{"a":"{"m" * (LONG_BYTES + 1)}"}}'),
        chat('"x"', ',"x":"' + "z" * 600_000 + '"'),
    ]
    body = "[" + ",".join(reversed(fields)) + "]"
    _, outlined = json.loads(read(body).outline)
    assert len(outlined["metadata"]["a"]) == FILLER_BYTES


def listed(piece: str, count: int) -> str:
    return "[" + ",".join([piece] * count) + "]"


@pytest.mark.parametrize(
    ("member", "named"),
    [
        (lambda: listed("[]", MAX_CONTAINERS), "lists and objects"),
        (lambda: "[" * MAX_CONTAINERS + "]" * MAX_CONTAINERS, "lists and objects"),
        (lambda: "{" + ",".join(f'"{at}":1' for at in range(MAX_MEMBERS)) + "}", "members"),
        (lambda: listed("1", MAX_VALUES + 2), "commas"),
        (lambda: "1" * 9_000_000, "bytes outside of strings"),
        (lambda: " " * 9_000_000 + "1", "bytes outside of strings"),
        (lambda: '"' + "\\n" * 2_000_001 + '"', "backslashes"),
        (lambda: '"' + "é" * 2_000_001 + '"', "backslashes"),
        (lambda: '"' + "a" * LIMIT + '"', "max_body_bytes"),
    ],
)
def test_what_makes_decoding_slow_is_refused_with_its_bound(member: Callable[[], str], named: str) -> None:
    with pytest.raises(PayloadTooLarge, match=named):
        read(chat('"x"', f',"unknown":{member()}').encode())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'"\\x"', "no escape"),
        (b'"\\ud800 alone"', "no escape"),
        (b'"\\u12"', "no escape"),
        (b'"\x00"', "control character"),
        (b'"\x01"', "control character"),
        (b'"\n"', "control character"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xc3', "not UTF-8"),
        (b'"\\', "no escape"),
    ],
)
def test_strings_that_are_none_are_refused(content: bytes, fault: str) -> None:
    padding = b'"' + b"a" * 300_000 + b'",'
    with pytest.raises(InvalidRequest, match=fault):
        read(b"[" + padding + content + (b"]" if content.endswith(b'"') else b""))


async def test_the_event_loop_runs_between_the_pieces() -> None:
    turns, body = 0, b'"' + random.Random(1).randbytes(1_000_000).hex().encode() + b'"'
    reading = asyncio.create_task(read_large_body(body, LIMIT))
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= len(body) // large_body.PIECE_BYTES
