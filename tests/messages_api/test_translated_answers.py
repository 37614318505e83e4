"""A chat's answer becomes a message without loss, and a streamed message is the whole one: laws of pure functions."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jiter import from_json
from tests.long_form import examples
from tests.messages_api.told_messages import checked, events_of, put_together

from anywire.errors import StreamCorrupted
from anywire.messages import Chunk
from anywire_gateway_openai.anthropic import blocks
from anywire_gateway_openai.anthropic.answer import whole_message
from anywire_gateway_openai.anthropic.events import MessageEvents
from anywire_gateway_openai.anthropic.messages import Given, chat_messages
from anywire_gateway_openai.ollama.answer import Answer as OllamaAnswer
from anywire_gateway_openai.responses.output import ResponseOutput

TASK = "0123456789abcdef"
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
TOLD_USAGE = {
    "input_tokens": 4,
    "output_tokens": 5,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 8,
    "output_tokens_details": {"thinking_tokens": 2},
}

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
call = st.fixed_dictionaries(
    {"id": texts, "name": texts, "input": st.dictionaries(texts, values, max_size=2), "spaced": st.booleans()}
)
answers: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"thought": st.just("") | texts, "said": st.just("") | texts, "calls": st.lists(call, max_size=3)}
)


def message_of(answer: dict[str, Any]) -> dict[str, Any]:
    """What a chat says: its message."""
    message: dict[str, Any] = {"role": "assistant", "content": answer["said"] or (None if answer["calls"] else "")}
    if answer["thought"]:
        message["reasoning_content"] = answer["thought"]
    if answer["calls"]:
        message["tool_calls"] = [
            {"id": each["id"], "type": "function",
             "function": {"name": each["name"],
                          "arguments": json.dumps(each["input"], separators=None if each["spaced"] else (",", ":"))}}
            for each in answer["calls"]
        ]  # fmt: skip
    return message


def chunk(number: int, deltas: tuple[str, ...] = (), choice: dict[str, Any] | None = None, **more: Any) -> Chunk:
    extra = json.dumps([{"index": 0, **choice}]) if choice is not None else ""
    return Chunk("h", TASK, 1, number, deltas or ("",) * bool(extra), extra, **more)


def whole_chunk(message: dict[str, Any], finish: str) -> Chunk:
    text = message.get("content") or ""
    choice = {"message": message, "finish_reason": finish}
    return chunk(0, (text,), choice, final=True, finish_reason=finish, usage=json.dumps(USAGE))


def cut(draw: st.DrawFn, text: str) -> list[str]:
    ends = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=3))})
    return [text[begin:end] for begin, end in pairwise(ends)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Any], str, list[Chunk]]:
    """An answer, why it ends, and the chunks of its stream: in pieces, and the arguments of its calls mixed."""
    answer = draw(answers)
    finish = draw(st.sampled_from(["stop", "tool_calls"] if answer["calls"] else ["stop", "length"]))
    message = message_of(answer)
    chunks: list[Chunk] = []
    for piece in cut(draw, answer["thought"]):
        chunks.append(chunk(len(chunks), choice={"delta": {"reasoning_content": piece}}))
    for piece in cut(draw, answer["said"]):
        if draw(st.booleans()):
            chunks.append(chunk(len(chunks), (piece,)))
        else:
            chunks.append(chunk(len(chunks), (piece,), {"delta": {"content": piece}}))
    waiting = []
    for index, each in enumerate(message.get("tool_calls", ())):
        name, *rest = cut(draw, each["function"]["name"])
        steps = [{"id": each["id"], "type": "function", "function": {"name": name, "arguments": ""}}]
        steps += [{"function": {"name": piece}} for piece in rest]
        steps += [{"function": {"arguments": piece}} for piece in cut(draw, each["function"]["arguments"])]
        waiting.append([{"index": index, **step} for step in steps])
    mixes = draw(st.booleans())
    begun = 0
    while any(waiting):
        # A call begins after the one before it has; then they may come in any order.
        open_now = [at for at, steps in enumerate(waiting[:begun]) if steps]
        can_begin = begun < len(waiting)
        if not open_now or (mixes and can_begin and draw(st.booleans())):
            begun += 1
            open_now = [begun - 1]
        at = draw(st.sampled_from(open_now)) if mixes else open_now[0]
        chunks.append(chunk(len(chunks), choice={"delta": {"tool_calls": [waiting[at].pop(0)]}}))
    end: dict[str, Any] = {"final": True, "finish_reason": finish, "usage": json.dumps(USAGE)}
    chunks.append(chunk(len(chunks), **end))
    return answer, finish, chunks


@given(streams(), st.data())
@settings(max_examples=examples(100), deadline=None)
def test_a_streamed_message_is_the_whole_one(
    stream: tuple[dict[str, Any], str, list[Chunk]], data: st.DataObject
) -> None:
    answer, finish, chunks = stream
    whole = checked(
        json.loads(msgspec.json.encode(whole_message(TASK, "m", whole_chunk(message_of(answer), finish), ())))
    )
    events = MessageEvents(TASK, ())
    written = b""
    while chunks:
        together = data.draw(st.integers(1, len(chunks)))
        written += events.events(chunks[:together], "m")
        chunks = chunks[together:]
    assert events.ended
    told = put_together(events_of(written))
    assert told == whole
    assert whole["usage"] == TOLD_USAGE
    assert whole["stop_reason"] == {
        "length": "max_tokens", "tool_calls": "tool_use", "stop": "tool_use" if answer["calls"] else "end_turn",
    }[finish]  # fmt: skip


@given(answers)
@settings(max_examples=examples(100), deadline=None)
def test_an_answer_that_is_sent_back_is_what_the_engine_said(answer: dict[str, Any]) -> None:
    said = message_of(answer)
    content = json.loads(msgspec.json.encode(whole_message(TASK, "m", whole_chunk(said, "stop"), ())))["content"]
    (back,), ignored = chat_messages(None, [Given("assistant", content)])
    for each in (*said.get("tool_calls", ()), *back.get("tool_calls", ())):
        each["function"]["arguments"] = json.loads(each["function"]["arguments"])
    assert back == said
    assert not ignored


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "null", "x"])
def test_arguments_that_are_no_object_are_told_and_come_back(arguments: str) -> None:
    said = {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}
    message = json.loads(msgspec.json.encode(whole_message(TASK, "m", whole_chunk(said, "length"), ())))
    assert checked(message)["content"][0]["input"] == {"INVALID_JSON": arguments}
    (back,), _ = chat_messages(None, [Given("assistant", message["content"])])
    assert back["tool_calls"][0]["function"]["arguments"] == arguments


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["no", "t json"], {"INVALID_JSON": "not json"}),
        (["[1", "]"], {"INVALID_JSON": "[1]"}),
        ([" ", "\n", '{"a"', ": 1}"], {"a": 1}),
        ([" ", "\n"], {}),
    ],
)
def test_a_client_can_read_the_arguments_after_every_piece(pieces: list[str], expected: Any) -> None:
    events, told = MessageEvents(TASK, ()), b""
    head: dict[str, Any] = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    steps = [head, *[{"index": 0, "function": {"arguments": piece}} for piece in pieces]]
    chunks = [chunk(at, choice={"delta": {"tool_calls": [step]}}) for at, step in enumerate(steps)]
    for each in (*chunks, chunk(len(chunks), final=True, finish_reason="tool_calls")):
        told += events.events([each], "m")
    found = events_of(told)
    buffer, read = b"", []
    for event in found:
        if event["type"] == "content_block_delta":
            buffer += event["delta"]["partial_json"].encode()
            read.append(from_json(buffer, partial_mode=True))  # as Anthropic's client does it
    assert (read or [{}])[-1] == expected
    assert put_together(found)["content"][0]["input"] == expected
    said = {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "".join(pieces)}}]}
    whole = json.loads(msgspec.json.encode(whole_message(TASK, "m", whole_chunk(said, "tool_calls"), ())))
    assert whole["content"][0]["input"] == expected


def test_what_nothing_was_said_in_has_an_empty_text() -> None:
    message = whole_message(TASK, "m", chunk(0, ("",), final=True, finish_reason="stop"), ())
    assert checked(message)["content"] == [{"type": "text", "text": ""}]
    assert message["usage"] == {"input_tokens": 0, "output_tokens": 0}
    events = MessageEvents(TASK, ())
    told = put_together(events_of(events.events([chunk(0, final=True, finish_reason="stop")], "m")))
    assert told == message


def test_the_text_at_which_an_engine_stopped_is_told_where_it_was_asked_for() -> None:
    choice = {"message": {"content": "a"}, "finish_reason": "stop", "stop_reason": "END"}
    for stops, reason, text in ((("END",), "stop_sequence", "END"), (("X",), "end_turn", None)):
        message = whole_message(TASK, "m", chunk(0, ("a",), choice, final=True, finish_reason="stop"), stops)
        assert (message["stop_reason"], message["stop_sequence"]) == (reason, text)


def test_calls_are_told_as_they_come_where_each_is_whole_before_the_next() -> None:
    events = MessageEvents(TASK, ())

    def told(call: dict[str, Any]) -> list[str]:
        made = events_of(events.events([chunk(0, choice={"delta": {"tool_calls": [call]}})], "m"))
        return [each["type"] for each in made]

    assert told({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}) == ["message_start"]
    assert told({"index": 0, "function": {"arguments": '{"x": 1}'}}) == ["content_block_start", "content_block_delta"]
    assert told({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}}) == [
        "content_block_stop", "content_block_start", "content_block_delta",
    ]  # fmt: skip
    assert told({"index": 2, "id": "c", "function": {"name": "h", "arguments": "{}"}}) == []
    assert told({"index": 1, "function": {"arguments": "}"}}) == [
        "content_block_delta", "content_block_stop", "content_block_start", "content_block_delta",
    ]  # fmt: skip


def _call(name: str = "", arguments: str = "", **more: Any) -> dict[str, Any]:
    return {**more, "function": {**({"name": name} if name else {}), "arguments": arguments}}


TWO = [("a", "look", {"at": 1}), ("b", "look", {"at": 2})]


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        # two calls by one index, as some servers give all of them, and without any
        ([[_call("look", '{"at":1}', index=0, id="a")], [_call("look", '{"at":2}', index=0, id="b")]], TWO),
        ([[_call("look", '{"at":1}', id="a")], [_call("look", '{"at":2}', id="b")]], TWO),
        ([[_call("look", '{"at":1}', id="a"), _call("look", '{"at":2}', id="b")]], TWO),
        ([[_call("look", '{"at"', id="a")], [_call("", ":1}")], [_call("look", '{"at":2}', id="b")]], TWO),
        ([[_call("look", '{"at"', id="a")], [_call("look", ":1}", id="a")], [_call("look", '{"at":2}', id="b")]], TWO),
        # a name that is said again, and an id of its own for every piece
        ([[_call("look", index=0, id="a")], [_call("look", '{"at":1}', index=0, id="a")]], TWO[:1]),
        ([[_call("look", index=0, id="a")], [_call("", '{"at":1}', index=0, id="z")]], TWO[:1]),
    ],
)
def test_calls_are_told_apart_however_a_server_numbers_them(pieces: list[Any], calls: list[Any]) -> None:
    events = MessageEvents(TASK, ())
    responses, ollama = ResponseOutput(TASK), OllamaAnswer()
    chunks = [chunk(number, choice={"delta": {"tool_calls": piece}}) for number, piece in enumerate(pieces)]
    for piece in pieces:
        responses.add({"tool_calls": piece})
    responses.end("tool_calls")
    for each in chunks:
        ollama.add(each)
    end = chunk(len(chunks), final=True, finish_reason="tool_calls")
    message = put_together(events_of(events.events([*chunks, end], "m")))
    assert [(each["id"], each["name"], each["input"]) for each in message["content"]] == calls
    told = [(each["call_id"], each["name"], json.loads(each["arguments"])) for each in responses.items]
    assert told == calls
    functions = [(each["id"], each["function"]["name"], each["function"]["arguments"]) for each in ollama.calls()]
    assert functions == calls


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("nonsense", "cannot be read"),
        ('[{"index": 0, "delta": 7}]', ""),
        ('[{"index": 0, "delta": {"tool_calls": [7, {"function": 8}], "content": 9, "reasoning": []}}]', ""),
        ('[{"index": 1, "delta": {"content": "another choice"}}]', ""),
        ('[{"index": 0, "delta": {"content": [{"type": "text", "text": "in parts"}]}}]', ""),
    ],
)
def test_strange_pieces_are_passed_over_or_an_error(extra: str, said: str) -> None:
    events = MessageEvents(TASK, ())
    pieces = [Chunk("h", TASK, 1, 0, ("",), extra), Chunk("h", TASK, 1, 1, final=True, finish_reason="stop")]
    if said:
        with pytest.raises(StreamCorrupted, match=said):
            events.events(pieces, "m")
        return
    message = put_together(events_of(events.events(pieces, "m")))
    assert checked(message)["stop_reason"] in ("end_turn", "tool_use")
    assert ("in parts" in str(message)) == ("in parts" in extra)


def test_an_answer_has_no_end_of_blocks_and_nothing_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 3)
    events = MessageEvents(TASK, ())
    calls = [{"index": at, "id": str(at), "function": {"name": "f"}} for at in range(4)]
    with pytest.raises(StreamCorrupted, match="more than 3 blocks"):
        events.events([chunk(0, choice={"delta": {"tool_calls": calls}})], "m")
    ended = MessageEvents(TASK, ())
    ended.events([chunk(0, final=True)], "m")
    with pytest.raises(StreamCorrupted, match="after the final"):
        ended.events([chunk(1, ("x",))], "m")
