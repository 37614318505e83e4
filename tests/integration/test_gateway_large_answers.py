"""What an agent sends as JSON for an answer: passed on as it is, and refused where reading it would stop the others."""

from __future__ import annotations

import json

import msgspec
import pytest

from anywire.errors import StreamCorrupted
from anywire.messages import Chunk, Kind
from anywire_gateway_openai.answers import LARGE_CHARS, MAX_PARTS, answer
from anywire_gateway_openai.as_asked import not_followed
from anywire_gateway_openai.chat_schema import ChatRequest
from anywire_gateway_openai.sse import MAX_EVENT_PARTS, EventEncoder
from anywire_gateway_predecessor.chats import text_of, usage_of

TOO_MANY = "[" + ",".join(["[]"] * MAX_PARTS) + "]"
TOO_MANY_MEMBERS = "{" + ",".join([f'"{at}":1' for at in range(LARGE_CHARS // 6)]) + ',"choices":[]}'
DEEP = "[" * 100_000
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "x"}, "logprobs": {"content": []}}


def _final(extra: str = "", usage: str = "") -> Chunk:
    return Chunk("h", "t", 1, 0, ("",), extra, True, "stop", usage)


@pytest.mark.parametrize("kind", ["chat", "completion", "embedding"])
@pytest.mark.parametrize("extra", [TOO_MANY, TOO_MANY_MEMBERS, DEEP, f'{{"choices":{DEEP}', "[", "7", '{"choices":7}'])
def test_a_whole_answer_that_cannot_be_read_cheaply_is_refused(kind: Kind, extra: str) -> None:
    with pytest.raises(StreamCorrupted, match="the agent sent"):
        answer(kind, "t", "m", _final(extra))


@pytest.mark.parametrize("usage", ["[]", DEEP, '{"a":'])
def test_usage_that_is_no_object_is_refused(usage: str) -> None:
    with pytest.raises(StreamCorrupted, match="usage"):
        answer("chat", "t", "m", _final(usage=usage))
    with pytest.raises(StreamCorrupted, match="usage"):
        EventEncoder("chat", "t", "m", True).events([_final(usage=usage)])


@pytest.mark.parametrize(
    "extra",
    [
        TOO_MANY,
        DEEP,
        "[" + ",".join(["{}"] * (MAX_EVENT_PARTS + 1)) + "]",
        "[{" + ",".join([f'"{at}":1' for at in range(MAX_EVENT_PARTS + 2)]) + "}]",
    ],
)
def test_an_event_that_cannot_be_read_cheaply_is_refused(extra: str) -> None:
    with pytest.raises(StreamCorrupted, match="the agent sent"):
        EventEncoder("chat", "t", "m", False).events([Chunk("h", "t", 1, 0, (), extra)])


def test_many_log_probabilities_are_passed_on_as_they_are() -> None:
    choice = CHOICE | {"logprobs": {"content": [{"token": "x", "logprob": -0.5, "bytes": [120]}] * 100_000}}
    extra = json.dumps([choice] * 2)
    found = msgspec.json.decode(answer("chat", "t", "m", _final(extra)))
    assert found["choices"] == [choice] * 2


@pytest.mark.parametrize(
    ("extra", "missing"),
    [
        ("", ("n", "logprobs")),
        (json.dumps([CHOICE]), ("n",)),
        (json.dumps({"choices": [CHOICE] * 2}), ()),
        (json.dumps([CHOICE | {"logprobs": None}] * 2), ("logprobs",)),
        (json.dumps([{"index": 0}] * 2), ("logprobs",)),
        ("[1,2]", ()),
    ],
)
def test_what_an_answer_shows_no_sign_of_is_named(extra: str, missing: tuple[str, ...]) -> None:
    assert not_followed(ChatRequest(messages=[], n=2, logprobs=True), _final(extra)) == missing


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        (json.dumps([CHOICE]), "x"),
        (json.dumps({"choices": [CHOICE], "id": 1}), "x"),
        *((wrong, "") for wrong in (TOO_MANY, DEEP, "[]", "[7]", '[{"message":{"content":null}}]', "{}")),
    ],
)
def test_the_predecessor_gets_the_text_of_the_first_choice_or_none(extra: str, text: str) -> None:
    assert text_of(_final(extra)) == text


@pytest.mark.parametrize("usage", ["[]", DEEP, '{"a":' + DEEP])
def test_the_predecessor_gets_no_usage_that_cannot_be_read(usage: str) -> None:
    assert set(usage_of(_final(usage=usage)).values()) == {0}
