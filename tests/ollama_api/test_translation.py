"""Translation between Ollama's API and chats: nothing is lost either way, and a streamed answer is the whole one."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama import ChatResponse, GenerateResponse
from tests.long_form import examples

from anywire.errors import InvalidRequest
from anywire.messages import Chunk
from anywire_gateway_openai.ollama.answer import CHAT, GENERATED, UNREADABLE, Form, Lines, whole
from anywire_gateway_openai.ollama.names import served, tagged
from anywire_gateway_openai.ollama.request import (
    Asked,
    asked_chat,
    asked_embed,
    asked_generate,
    chat_decoder,
    embed_decoder,
    generate_decoder,
    unloads,
)

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0rest").decode()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.sampled_from("abc_"), min_size=1, max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
calls = st.builds(
    lambda name, arguments: {"function": {"name": name, "arguments": arguments}},
    names,
    st.dictionaries(names, values, max_size=3),
)
messages = st.one_of(
    st.builds(lambda text: {"role": "system", "content": text}, texts),
    st.builds(
        lambda text, images: {"role": "user", "content": text, "images": images},
        texts,
        st.lists(st.sampled_from([PNG, JPEG]), max_size=2),
    ),
    st.builds(
        lambda text, thought, made: {"role": "assistant", "content": text, "thinking": thought, "tool_calls": made},
        texts,
        texts,
        st.lists(calls, max_size=3),
    ),
    st.builds(lambda text, name: {"role": "tool", "content": text, "tool_name": name}, texts, names),
)


def chat(**request: Any) -> Asked:
    body = {"model": "m", **request}
    return asked_chat(chat_decoder.decode(msgspec.json.encode(body)), body)


def generate(**request: Any) -> Asked:
    body = {"model": "m", **request}
    return asked_generate(generate_decoder.decode(msgspec.json.encode(body)), body)


def back(message: dict[str, Any]) -> dict[str, Any]:
    """A message of a chat in Ollama's form, as Ollama's own server would say it."""
    content = message["content"]
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    made: dict[str, Any] = {
        "role": message["role"],
        "content": "".join(each["text"] for each in parts if each["type"] == "text"),
    }
    if message["role"] == "user":
        made["images"] = [each["image_url"]["url"].partition(",")[2] for each in parts if each["type"] == "image_url"]
    if message["role"] == "assistant":
        made["thinking"] = message.get("reasoning_content", "")
        made["tool_calls"] = [
            {"function": {"name": each["function"]["name"], "arguments": json.loads(each["function"]["arguments"])}}
            for each in message.get("tool_calls", ())
        ]
    if message["role"] == "tool":
        made["tool_name"] = message["name"]
    return made


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(messages, min_size=1, max_size=6))
def test_a_chat_keeps_all_that_its_messages_say(said: list[dict[str, Any]]) -> None:
    asked = chat(messages=said)
    assert [back(each) for each in asked.body["messages"]] == said
    assert asked.ignored == ()
    ids = [call["id"] for each in asked.body["messages"] for call in each.get("tool_calls", ())]
    assert len(set(ids)) == len(ids)


def test_results_of_tools_belong_to_their_calls() -> None:
    def call(name: str, **more: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {}}, **more}

    asked = chat(
        messages=[
            {"role": "assistant", "tool_calls": [call("a"), call("b"), call("a", id="own")]},
            {"role": "tool", "content": "1", "tool_name": "b"},
            {"role": "tool", "content": "2", "tool_name": "a"},
            {"role": "tool", "content": "3"},
            {"role": "tool", "content": "4", "tool_name": "never called"},
        ]
    )
    first, *results = asked.body["messages"]
    of_a, of_b, own = [each["id"] for each in first["tool_calls"]]
    assert own == "own"
    found = [each["tool_call_id"] for each in results]
    assert found[:3] == [of_b, of_a, own]
    assert found[3] not in (of_a, of_b, own)


def test_options_become_sampling_parameters_and_the_others_are_named() -> None:
    asked = chat(
        messages=[{"role": "user", "content": "x"}],
        options={
            "temperature": 0.5, "top_k": 40.0, "top_p": 0.9, "min_p": 0.1, "seed": 7, "num_predict": 9, "stop": "END",
            "repeat_penalty": 1.1, "num_ctx": 4096, "num_gpu": 1, "typical_p": None,
        },
        keep_alive="5m",
        truncate=True,
    )  # fmt: skip
    wanted = {
        "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.1, "seed": 7, "max_tokens": 9, "stop": ["END"],
        "repeat_penalty": 1.1, "repetition_penalty": 1.1,
    }  # fmt: skip
    assert {name: value for name, value in asked.body.items() if name != "messages"} == wanted
    assert asked.ignored == ("keep_alive", "options.num_ctx", "options.num_gpu", "truncate")
    for endless in (-1, -2, 0):
        assert "max_tokens" not in chat(messages=[], options={"num_predict": endless}).body


@pytest.mark.parametrize(
    ("given_format", "wanted"),
    [
        ("", None),
        (None, None),
        ("json", {"type": "json_object"}),
        (
            {"type": "object"},
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        ),
    ],
)
def test_a_format_becomes_a_response_format(given_format: Any, wanted: Any) -> None:
    assert chat(messages=[], format=given_format).body.get("response_format") == wanted


def test_thinking_is_switched_and_weighed() -> None:
    assert "chat_template_kwargs" not in chat(messages=[]).body
    assert chat(messages=[], think=False).body["chat_template_kwargs"] == {"enable_thinking": False}
    asked = chat(messages=[], think="high").body
    assert (asked["reasoning_effort"], asked["chat_template_kwargs"]) == ("high", {"enable_thinking": True})


def test_a_prompt_is_a_chat_unless_it_is_raw_or_has_a_suffix() -> None:
    asked = generate(prompt="what?", system="be brief", images=[PNG], think=True)
    assert asked.kind == "chat"
    assert [each["role"] for each in asked.body["messages"]] == ["system", "user"]
    assert asked.body["messages"][1]["content"][0] == {"type": "text", "text": "what?"}
    raw = generate(prompt="once", raw=True, think=True, logprobs=True, top_logprobs=3)
    assert (raw.kind, raw.body, raw.ignored) == ("completion", {"prompt": "once", "logprobs": 3}, ("think",))
    middle = generate(prompt="def f(", suffix="return 1")
    assert (middle.kind, middle.body) == ("completion", {"prompt": "def f(", "suffix": "return 1"})


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"messages": [{"role": "user", "images": ["no image"]}]}, "messages[0].images[0]"),
        ({"messages": [], "format": "xml"}, "format"),
        ({"messages": [], "format": 5}, "format"),
        ({"messages": [], "options": {"temperature": "hot"}}, "options.temperature"),
        ({"messages": [], "options": {"stop": [1]}}, "options.stop"),
        ({"messages": [], "template": "{{ .Prompt }}"}, "template"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(request_: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**request_)
    assert refused.value.param == param


def test_what_a_prompt_cannot_have_is_refused_by_name() -> None:
    for request, param in (
        ({"prompt": "x", "context": [1, 2]}, "context"),
        ({"prompt": "x", "raw": True, "system": "y"}, "system"),
        ({"prompt": "x", "suffix": "z", "images": [PNG]}, "images"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            generate(**request)
        assert refused.value.param == param
    with pytest.raises(InvalidRequest, match="input"):
        asked_embed(embed_decoder.decode(b'{"model":"m","input":[]}'), ())


def test_names_without_effect_fit_into_a_header() -> None:
    asked = chat(messages=[], **{f"x{at}": 1 for at in range(100)}, **{"a\r\nb": 1, "ü": 1, "y" * 100: 1})
    assert len(asked.ignored) == 32
    assert all(each.isascii() and each.isprintable() for each in asked.ignored)


def test_a_name_means_its_latest_tag() -> None:
    assert (tagged("m"), tagged("m:7b")) == ("m:latest", "m:7b")
    assert served("m:latest", {"m"}) == "m"
    assert served("m", {"m:latest"}) == "m:latest"
    assert served("m", {"m", "m:latest"}) == "m"
    assert served("other:latest", {"m"}) == "other:latest"
    assert [unloads(each) for each in (0, "0", "0s", "0m", 0.0)] == [True] * 5
    assert [unloads(each) for each in (None, 1, "5m", -1, "10s", "")] == [False] * 6


# Answers


class Piece(msgspec.Struct):
    """What one step of an engine says, and whether it says that as plain text."""

    content: str = ""
    thought: str = ""
    call: tuple[int, str, str] | None = None
    is_plain: bool = True


pieces = st.builds(
    Piece,
    texts,
    texts,
    st.none() | st.tuples(st.integers(0, 2), names, st.dictionaries(names, values, max_size=2).map(json.dumps)),
    st.booleans(),
)


def streamed(said: list[Piece], usage: str) -> list[Chunk]:
    """The chunks of a stream; the arguments of calls come in two halves."""
    chunks: list[Chunk] = []
    begun: set[int] = set()
    for piece in said:
        if piece.is_plain and piece.content:
            chunks.append(Chunk("h", "t", 1, len(chunks), (piece.content,)))
        else:
            add(chunks, {"content": piece.content})
        if piece.thought:
            add(chunks, {"reasoning_content": piece.thought})
        if piece.call is not None and piece.call[0] not in begun:
            index, name, arguments = piece.call
            begun.add(index)
            half = len(arguments) // 2
            head = {"index": index, "id": f"c{index}", "type": "function"}
            add(chunks, {"tool_calls": [{**head, "function": {"name": name, "arguments": arguments[:half]}}]})
            add(chunks, {"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]})
    chunks.append(Chunk("h", "t", 1, len(chunks), (), "", True, "stop", usage, "", 10, 20, 50, 90))
    return chunks


def add(chunks: list[Chunk], delta: dict[str, Any]) -> None:
    extra = json.dumps([{"index": 0, "delta": delta, "finish_reason": None}])
    chunks.append(Chunk("h", "t", 1, len(chunks), (str(delta.get("content") or ""),), extra))


def unary(said: list[Piece], usage: str) -> Chunk:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(each.content for each in said)}
    message["reasoning_content"] = "".join(each.thought for each in said)
    made: dict[int, dict[str, Any]] = {}
    for piece in said:
        if piece.call is not None and piece.call[0] not in made:
            index, name, arguments = piece.call
            made[index] = {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
    if made:
        message["tool_calls"] = list(made.values())
    extra = json.dumps([{"index": 0, "message": message, "finish_reason": "stop"}])
    return Chunk("h", "t", 1, 0, (message["content"],), extra, True, "stop", usage, "", 10, 20, 50, 90)


def joined(form: Form, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole answer that a client makes of the lines of a stream."""
    *steps, last = lines
    assert all(each["done"] is False for each in steps)
    made: dict[str, Any] = {}
    for each in [*steps, last]:
        for name, value in (each["message"] if form.is_chat else each).items():
            if name in ("content", "response", "thinking"):
                made[name] = made.get(name, "") + value
            elif name == "tool_calls":
                made[name] = made.get(name, []) + value
    ending = {name: value for name, value in last.items() if name not in ("message", "response", "created_at")}
    return {**made, **ending}


@settings(max_examples=examples(80), deadline=None)
@given(st.lists(pieces, max_size=6), st.sampled_from([CHAT, GENERATED]), st.booleans())
def test_a_streamed_answer_is_the_whole_one(said: list[Piece], form: Form, tells_usage: bool) -> None:
    usage = '{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}' if tells_usage else ""
    encoder, written = Lines(form, "m", 100), b""
    for chunk in streamed(said, usage):
        assert not encoder.ended
        written += encoder.lines(chunk, 1100)
    assert encoder.ended
    lines = [json.loads(each) for each in written.decode().splitlines()]  # as httpx does, at any line break
    answer = json.loads(whole(form, "m", unary(said, usage), 1000))
    kind = ChatResponse if form.is_chat else GenerateResponse
    for each in [*lines, answer]:
        kind.model_validate(each)
    told = dict(answer["message"]) if form.is_chat else {
        name: answer[name] for name in ("response", "thinking", "tool_calls") if name in answer
    }  # fmt: skip
    told.pop("role", None)
    rest = {name: each for name, each in answer.items() if name not in ("message", "created_at", *told)}
    assert joined(form, lines) == {**told, **rest}
    text = "content" if form.is_chat else "response"
    assert told[text] == "".join(each.content for each in said)
    assert told.get("thinking", "") == "".join(each.thought for each in said)
    assert (rest["load_duration"], rest["prompt_eval_duration"], rest["eval_duration"]) == (10, 30, 40)
    assert rest["total_duration"] == 1000
    assert (rest.get("prompt_eval_count"), rest.get("eval_count")) == ((3, 5) if tells_usage else (None, None))


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("", "stop")]
)
def test_the_reason_to_end_is_ollamas(reason: str, told: str) -> None:
    chunk = Chunk("h", "t", 1, 0, ("x",), "", True, reason)
    assert json.loads(whole(CHAT, "m", chunk, 1))["done_reason"] == told


def test_arguments_that_are_no_object_are_told_as_they_are() -> None:
    for arguments, read in (("{", {UNREADABLE: "{"}), ("[1]", {UNREADABLE: "[1]"}), ("", {}), ('{"a":1}', {"a": 1})):
        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}
        extra = json.dumps([{"index": 0, "message": {"content": None, "tool_calls": [call]}}])
        answer = json.loads(whole(CHAT, "m", Chunk("h", "t", 1, 0, (), extra, True, "tool_calls"), 1))
        (made,) = answer["message"]["tool_calls"]
        assert made == {"id": "c", "function": {"index": 0, "name": "f", "arguments": read}}


def test_log_probabilities_are_those_of_the_tokens() -> None:
    content = [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.0}]}]
    extra = json.dumps([{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": content}}])
    (line, _) = Lines(CHAT, "m", 0).lines(Chunk("h", "t", 1, 0, ("a",), extra, True, "stop"), 1).splitlines()
    found = ChatResponse.model_validate_json(line).logprobs
    assert found is not None
    assert (found[0].token, found[0].logprob) == ("a", -0.5)
    old = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -1.0}]}
    extra = json.dumps([{"index": 0, "text": "a", "logprobs": old}])
    answer = GenerateResponse.model_validate_json(whole(GENERATED, "m", Chunk("h", "t", 1, 0, ("a",), extra, True), 1))
    assert answer.response == "a"
    assert answer.logprobs is not None
    assert answer.logprobs[0].top_logprobs is not None
    assert answer.logprobs[0].top_logprobs[0].token == "b"
