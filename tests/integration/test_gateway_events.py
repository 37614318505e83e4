"""Server-sent events: whatever text an engine gives comes out of every client's parser as it went in."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from anywire.messages import Chunk
from anywire_gateway_openai.sse import EventEncoder

any_text = st.text(st.characters(exclude_categories=()) | st.sampled_from('\u2028\u2029\x85\x0b\x0c\x1c\n\r"\\\ud83d'))


def chunk(*texts: str, **fields: Any) -> Chunk:
    return Chunk("hub", "t", 1, 0, texts, **fields)


def encode(kind: Literal["chat", "completion"], chunks: list[list[Chunk]], **options: Any) -> bytes:
    encoder = EventEncoder(kind, "t", options.pop("model", "m"), options.pop("include_usage", False))
    data = b"".join(encoder.events(each) for each in chunks)
    assert encoder.ended
    return data


def by_official_parser(data: bytes) -> list[str]:
    return [event.data for event in SSEDecoder().iter_bytes(iter([data]))]


def by_lines(data: bytes) -> list[str]:
    """As clients do that split at every line break Unicode knows."""
    return [line.removeprefix("data: ") for line in data.decode().splitlines() if line.startswith("data: ")]


def readable(text: str) -> str:
    return text.encode(errors="replace").decode()


@pytest.mark.parametrize("parse", [by_official_parser, by_lines])
@pytest.mark.parametrize("kind", ["chat", "completion"])
@given(groups=st.lists(st.lists(st.lists(any_text, min_size=1, max_size=4), max_size=3), max_size=4), model=st.text())
def test_any_text_comes_through(parse: Any, kind: Any, groups: list[list[list[str]]], model: str) -> None:
    chunks = [[chunk(*texts) for texts in group] for group in groups] + [[chunk(final=True, finish_reason="stop")]]
    *events, done = parse(encode(kind, chunks, model=model))
    assert done == "[DONE]"
    answers = [json.loads(event) for event in events]
    assert {answer["model"] for answer in answers} == {model}
    choices = [answer["choices"][0] for answer in answers]
    texts = [choice["delta"].get("content") if kind == "chat" else choice["text"] for choice in choices]
    sent = [readable(text) for group in groups for texts in group for text in texts if text]
    assert texts == ([""] if kind == "chat" else []) + sent + [None if kind == "chat" else ""]
    if kind == "chat":
        assert [choice["delta"].get("role") for choice in choices] == ["assistant"] + [None] * (len(choices) - 1)
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]


@given(text=any_text, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_an_engine_s_own_choices_come_through(text: str, indent: int | None, ascii_only: bool) -> None:
    text = readable(text)
    choices = [
        {"index": 1, "delta": {"role": "assistant", "content": text}, "finish_reason": None, "mine": [1.5, text]}
    ]
    extra = json.dumps(choices, indent=indent, ensure_ascii=ascii_only)
    data = encode("chat", [[chunk("", extra=extra)], [chunk(final=True, finish_reason="stop")]])
    for parse in (by_official_parser, by_lines):
        assert json.loads(parse(data)[0])["choices"] == choices


def test_usage_comes_once_at_the_end_and_only_when_asked_for() -> None:
    last = chunk("a", final=True, finish_reason="stop", usage='{"total_tokens": 3}')
    with_usage = [json.loads(each) for each in by_official_parser(encode("chat", [[last]], include_usage=True))[:-1]]
    assert [event["usage"] for event in with_usage] == [None, None, None, {"total_tokens": 3}]
    assert with_usage[-1]["choices"] == []
    without = [json.loads(each) for each in by_official_parser(encode("chat", [[last]]))[:-1]]
    assert all("usage" not in event for event in without)


def test_stage_times_are_a_comment_in_the_last_event_and_only_when_asked_for() -> None:
    encoder = EventEncoder("chat", "t", "m", False)
    data = encoder.events([chunk("a", final=True)], {"received-admitted": 0.01234})
    assert data.endswith(b': anywire {"stages":{"received-admitted":0.012}}\ndata: [DONE]\n\n')
    data = EventEncoder("chat", "t", "m", False).events([chunk("a", final=True)])
    assert b"\n:" not in data
