"""Events of a stream that are like one another are read by their text alone, and nobody can tell."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest
from anywire_engine_openai import answers, usual_events
from anywire_engine_openai.stream import AnswerStream

CHAT = (
    '{"id":"c-1","object":"chat.completion.chunk","created":17,"model":"m1","choices":[{"index":0,"delta":{"content":%s},'
    '"logprobs":null,"finish_reason":null}]}'
)
SHAPES = [
    CHAT,
    CHAT.replace(":", ": "),
    CHAT.replace('"content"', '"role":"assistant","content"'),
    CHAT.replace('"logprobs":null', '"logprobs":null,"odd":null'),
    CHAT.replace('"created":17', '"system_fingerprint":"fp","created":17'),
    CHAT.replace("[{", "[ {").replace('"m1"', '"m\\u0031"'),
    '{"id":"c-1","choices":[{"index":0,"text":%s,"finish_reason":null}],"usage":null}',
    '{"choices":[{"index":0,"delta":{"content":"twice","content":%s}}]}',
    '{"choices":[{"index":0,"delta":{"content":%s,"content":"twice"}}]}',
    '{"choices":[{"index":1,"delta":{"content":%s}}]}',
    '{"choices":[{"index":0,"delta":{"content":%s,"new":"x"}}]}',
    '{"choices":[{"index":0,"delta":{"reasoning_content":%s,"content":null}}]}',
    '{"choices":[{"index":0,"delta":{"content":%s}}],"obfuscation":"a"}',
    '{"choices":[{"index":0,"delta":{"content":%s}}],"error":{"message":"oom"}}',
    '{"choices":[{"index":0,"delta":{"content":%s},"finish_reason":"stop"}]}',
    '{"choices":[{"index":0,"delta":{"content":"x"}}],"model":%s}',
]
TEXTS = st.one_of(
    st.sampled_from(
        ["", "a", " the", "m1", "assistant", "stop", "?probe?", "twice", '"', "\\", "\\n", "\n", "\r", "\n\n", "{}",
         "data: ", "[DONE]", "\u2028", "\u00a0", "\x7f", "é€😀", '"},"finish_reason":"stop","x":{"y":"']
    ),
    st.text(st.characters(codec="utf-8"), max_size=8),
)  # fmt: skip


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """A stream mostly of one shape, now and then of another, and now and then no event at all."""
    usual, end = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(["\n\n", "\n\n", "\n\n", "\r\n\r\n"]))
    stream = bytearray(draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b": ping\n\n", b"\n"])))
    for _ in range(draw(st.integers(1, 12))):
        shape = draw(st.sampled_from([usual] * 8 + SHAPES))
        text = json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))
        stream += ("data: " + shape % text + end).encode()
        stream += draw(
            st.sampled_from(
                [b""] * 12
                + [b": ping\n\n", b"\n", b"event: x\n", b"data: \n", b"id: 1\n\n", b"data: [DONE]\n\n",
                   b"data: {oops\n\n",
                   b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83e"}}]}\n\n',
                   b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
                   b'data: {"error":{"message":"no","code":400}}\n\n']
            )
        )  # fmt: skip
    return bytes(stream)


def apart(delta: Delta) -> list[Delta]:
    """Tokens that were given together, one by one."""
    return [Delta(text) for text in delta.parts] or [delta]


def told(stream: AnswerStream, pieces: Iterable[bytes]) -> tuple[list[Delta], Any]:
    """The deltas, and how it ended."""
    deltas: list[Delta] = []
    try:
        for piece in pieces:
            if stream.done:
                break
            for delta in stream.read(piece):
                deltas += apart(delta)
        stream.end()
    except (EngineFailed, InvalidRequest) as error:
        return deltas, (type(error), str(error))
    return deltas, stream.complete


@given(events(), st.lists(st.integers(0, 3000), max_size=5), st.booleans(), st.sampled_from([1, 2]))
@settings(max_examples=examples(200), deadline=None)
def test_the_short_way_and_the_long_one_agree(stream: bytes, points: list[int], keep: bool, choices: int) -> None:
    bounds = sorted({0, len(stream), *[point % (len(stream) + 1) for point in points]})
    pieces = [stream[begin:end] for begin, end in itertools.pairwise(bounds)]
    with mock.patch.object(usual_events, "TRIES", 0):
        long = AnswerStream(keep=keep, choices=choices)
    assert told(AnswerStream(keep=keep, choices=choices), pieces) == told(long, [stream])


@pytest.mark.parametrize("shape", SHAPES[:5])
@pytest.mark.parametrize("size", [1, 7, 1000, 1_000_000])
def test_most_of_a_usual_stream_is_not_read_in_full(shape: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f" token{number}" for number in range(200)]
    stream = b"".join([f"data: {shape % json.dumps(text)}\n\n".encode() for text in texts])
    read: list[bytes] = []
    step = answers.step

    def noted(data: bytes, *, keep: bool = False) -> Delta | None:
        read.append(data)
        return step(data, keep=keep)

    monkeypatch.setattr(answers, "step", noted)
    answer = AnswerStream(keep=True)
    given = [delta for at in range(0, len(stream), size) for delta in answer.read(stream[at : at + size])]
    deltas = [delta for each in given for delta in apart(each)]
    assert [delta.text for delta in deltas] == texts
    # Of each piece that is cut in the middle of an event that event is.
    most = {1: 300, 7: 300, 1000: 50, 1_000_000: 4}[size]
    assert len(read) <= most + (200 if "odd" in shape or "fp" in shape else 0)


def test_a_server_that_repeats_nothing_is_not_watched_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = 0
    plain_text = answers.plain_text

    def counted(data: bytes, *, keep: bool = False) -> str:
        nonlocal probes
        probes += 1
        return plain_text(data, keep=keep)

    monkeypatch.setattr(usual_events, "plain_text", counted)
    answer = AnswerStream()
    for number in range(100):
        event = CHAT.replace('"created":17', f'"created":{number}') % '"x"'
        assert list(answer.read(f"data: {event}\n\n".encode())) == [Delta("x")]
    assert 0 < probes <= usual_events.TRIES
