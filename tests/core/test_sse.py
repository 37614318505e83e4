"""The event stream parser: whatever legal way a stream is written and cut, the same events come out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire_engine_openai.sse import Event, EventTooLarge, SSEParser

# One line of payload: anything but line ends, with characters of one to four bytes and a few that could confuse.
payload_line = st.text(
    st.one_of(st.sampled_from("aé€😀: \ufeff\u2028\x85\x0b\x00{}[]"), st.characters(exclude_characters="\r\n")),
    max_size=12,
).filter(lambda text: not any(0xD800 <= ord(each) < 0xE000 for each in text))
type_name = st.one_of(st.just(""), payload_line.filter(bool))
event = st.builds(lambda lines, kind: (lines, kind), st.lists(payload_line, min_size=1, max_size=3), type_name)
noise = st.sampled_from(
    ["", ":", ": ping", ":data: no", "id: 7", "retry: 10", "unknown: x", "dat", " data: x", "datax:1"]
)
line_end = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def written(draw: st.DrawFn) -> tuple[list[Event], bytes]:
    """Some events and one legal way to write them."""
    events = draw(st.lists(event, max_size=6))
    text = draw(st.sampled_from(["", "\ufeff"]))

    def put(line: str) -> None:
        nonlocal text
        end = draw(line_end)
        if not line and end == "\n" and text.endswith("\r"):
            end = "\r\n"  # CR LF would be one line end and no empty line
        text += line + end

    def field(name: str, value: str) -> str:
        return f"{name}:{value}" if value[:1] != " " and draw(st.booleans()) else f"{name}: {value}"

    for lines, kind in events:
        fields = [field("event", kind)] if kind else []
        fields += ["data" if not line and draw(st.booleans()) else field("data", line) for line in lines]
        for each in fields:
            if extra := draw(noise):
                put(extra)
            put(each)
        for _ in range(draw(st.integers(1, 2))):
            put("")
    return [Event("\n".join(lines).encode(), kind) for lines, kind in events], text.encode()


def cut(stream: bytes, points: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(point, len(stream)) for point in points), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(bounds)]


def parse(pieces: list[bytes], **options: int) -> list[Event]:
    parser = SSEParser(**options)
    return [each for piece in pieces for each in parser.feed(piece)]


def reference(stream: bytes) -> list[Event]:
    """The grammar, line by line, over the whole stream."""
    events: list[Event] = []
    data: list[bytes] = []
    kind = ""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for line in text.split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                events.append(Event(b"\n".join(data), kind))
            data, kind = [], ""
        elif name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value.decode(errors="replace")
    return events


@given(written(), st.lists(st.integers(0, 400), max_size=12))
def test_any_writing_and_any_cut_gives_the_same_events(case: tuple[list[Event], bytes], points: list[int]) -> None:
    events, stream = case
    assert reference(stream) == events
    assert parse(cut(stream, points)) == events


@given(written())
def test_byte_by_byte(case: tuple[list[Event], bytes]) -> None:
    events, stream = case
    assert parse([bytes([each]) for each in stream]) == events


@given(
    st.lists(
        st.sampled_from([b"data:", b"data", b" ", b":", b"\r", b"\n", b"x", b"event:", b"\xef\xbb\xbf", b"\xe2\x82"])
    )
)
def test_any_bytes_are_read_as_the_grammar_says(pieces: list[bytes]) -> None:
    assert parse(pieces) == reference(b"".join(pieces))


def test_an_unfinished_event_is_not_shown() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: one\n") == []
    assert parser.feed(b"\n") == [Event(b"one")]


def test_an_event_ended_by_cr_is_shown_without_waiting_for_the_next_byte() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: one\r\r") == [Event(b"one")]
    assert parser.feed(b"\ndata: two\r\n\r") == [Event(b"two")]


def test_many_events_in_one_read() -> None:
    assert parse([b"data: x\n\n" * 1000 + b"data: [DONE]\n\n"]) == [Event(b"x")] * 1000 + [Event(b"[DONE]")]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 200],
        [b"x" * 60] * 3,
        [b"data: " + b"x" * 200 + b"\n"],
        [b"data: " + b"x" * 30 + b"\n"] * 4,
        [b"data:\n"] * 200,
        [b"data:\n" * 200],
    ],
)
def test_the_size_of_an_event_is_bounded(pieces: list[bytes]) -> None:
    with pytest.raises(EventTooLarge, match="100 bytes"):
        parse(pieces, max_event_bytes=100)


def test_the_bound_is_on_one_event_and_not_on_the_stream() -> None:
    assert len(parse([b": comment\ndata: " + b"x" * 80 + b"\n\n"] * 50, max_event_bytes=100)) == 50
