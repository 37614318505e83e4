"""What the synthetic engine answers beyond plain text: choices, log probabilities, tools, JSON, embeddings."""

from __future__ import annotations

import base64
import json
import random
import struct
from typing import Any

import pydantic
import pytest
from tests.core.test_synthetic import run

from anywire.builtin.schema_value import schema_value
from anywire.builtin.synthetic import WORDS, SyntheticConfig, SyntheticEngine
from anywire.engine import Delta
from anywire.errors import InvalidRequest
from anywire.messages import Kind, TaskRequest

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "search"}},
]
LONG_NAME = {"type": "function", "function": {"name": "f" * 100_000}}


async def deltas(body: dict[str, Any], *, kind: Kind = "chat", stream: bool = False) -> list[Delta]:
    engine = SyntheticEngine(SyntheticConfig())
    body = {"messages": [{"role": "user", "content": "hello"}]} | body if kind == "chat" else body
    task = TaskRequest("h", "t", 1, kind, "synthetic", json.dumps(body), stream)
    return [delta async for delta in engine.run(task) if isinstance(delta, Delta)]


async def whole(kind: Kind = "chat", **body: Any) -> list[dict[str, Any]]:
    (delta,) = await deltas(body, kind=kind)
    return json.loads(delta.extra)  # type: ignore[no-any-return]


async def streamed(kind: Kind = "chat", **body: Any) -> list[dict[str, Any]]:
    """The choices put together from the steps of a stream, in the form of `whole`."""
    found: dict[int, dict[str, Any]] = {}
    for delta in await deltas(body, kind=kind, stream=True):
        for step in json.loads(delta.extra):
            choice = found.setdefault(step["index"], {"text": "", "calls": [], "logprobs": []})
            said = step.get("delta", step)
            choice["text"] += said.get("content") or said.get("text") or ""
            for call in said.get("tool_calls", ()):
                if "id" in call:
                    choice["calls"].append(call)
                else:
                    choice["calls"][-1]["function"]["arguments"] += call["function"]["arguments"]
            choice["logprobs"].append(step["logprobs"])
            choice["finish_reason"] = step["finish_reason"]
    return [found[index] for index in sorted(found)]


async def test_choice_0_is_the_text_without_n_and_the_others_are_others() -> None:
    plain = "".join((await run())[0])
    texts = [each["message"]["content"] for each in await whole(n=3)]
    assert texts[0] == plain
    assert len(set(texts)) == 3
    assert texts == [each["text"] for each in await streamed(n=3)]
    assert await whole(n=3) == await whole(n=3)


async def test_each_prompt_of_a_list_is_answered_as_if_alone() -> None:
    alone = ["".join((await run(kind="completion", prompt=prompt))[0]) for prompt in ("a", "b")]
    choices = await whole("completion", prompt=["a", "b"], n=2)
    assert [each["index"] for each in choices] == [0, 1, 2, 3]
    assert [choices[0]["text"], choices[2]["text"]] == alone
    tokens = await whole("completion", prompt=[[1, 2], [3]])
    assert tokens[0]["text"] == "".join((await run(kind="completion", prompt=[1, 2]))[0])


async def test_usage_counts_every_choice() -> None:
    (delta,) = await deltas({"n": 2, "max_tokens": 5})
    assert json.loads(delta.usage) == {"prompt_tokens": 1, "completion_tokens": 10, "total_tokens": 11}


async def test_log_probabilities_are_those_of_the_same_text() -> None:
    (choice,) = await whole(logprobs=True, top_logprobs=2)
    content = choice["logprobs"]["content"]
    assert "".join(each["token"] for each in content) == choice["message"]["content"] == "".join((await run())[0])
    for each in content:
        assert each["logprob"] < 0
        assert bytes(each["bytes"]).decode() == each["token"]
        assert each["top_logprobs"][0]["token"] == each["token"]
        assert len({top["token"] for top in each["top_logprobs"]}) == 2
    (again,) = await streamed(logprobs=True, top_logprobs=2)
    assert [entry for step in again["logprobs"] for entry in step["content"]] == content


async def test_a_completion_echoes_its_prompt_with_log_probabilities() -> None:
    (choice,) = await whole("completion", prompt="so it is", echo=True, logprobs=1, max_tokens=0)
    assert choice["text"] == "so it is"
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["so", " it", " is"]
    assert logprobs["token_logprobs"][0] is None
    assert all(each < 0 for each in logprobs["token_logprobs"][1:])
    assert logprobs["text_offset"] == [0, 2, 5]
    assert [list(each) for each in logprobs["top_logprobs"]] == [["so"], [" it"], [" is"]]


@pytest.mark.parametrize(
    ("choice", "content", "called"),
    [
        ({"type": "function", "function": {"name": "get_weather"}}, "hello", "get_weather"),
        ("auto", "please search for it", "search"),
        (None, "please search for it", "search"),
        ("auto", "research it", None),
        ("auto", "hello", None),
        ("none", "search", None),
    ],
)
async def test_the_tool_that_is_asked_for_is_called(choice: Any, content: str, called: str | None) -> None:
    body = {"tools": TOOLS, "tool_choice": choice, "messages": [{"role": "user", "content": content}]}
    (found,) = await whole(**body)
    calls = found["message"].get("tool_calls", [])
    assert [each["function"]["name"] for each in calls] == ([called] if called else [])
    assert found["finish_reason"] == ("tool_calls" if called else "stop")
    assert (found["message"]["content"] is None) == bool(called)
    (again,) = await streamed(**body)
    assert [{name: each[name] for name in each if name != "index"} for each in again["calls"]] == calls


async def test_arguments_are_what_the_tools_schema_describes() -> None:
    (found,) = await whole(tools=TOOLS[:1], tool_choice="required")
    arguments = json.loads(found["message"]["tool_calls"][0]["function"]["arguments"])
    assert isinstance(arguments["city"], str)
    assert 1 <= arguments["days"] <= 7


async def test_an_answer_to_a_tools_result_is_text() -> None:
    messages = [{"role": "user", "content": "search"}, {"role": "tool", "tool_call_id": "1", "content": "search"}]
    (found,) = await whole(tools=TOOLS, messages=messages)
    assert found["finish_reason"] == "stop"


class Line(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(min_length=3, max_length=9)
    price: float = pydantic.Field(gt=0, lt=0.5)
    count: int = pydantic.Field(ge=5, multiple_of=5, le=100)
    kind: str = pydantic.Field(json_schema_extra={"enum": ["a", "b"]})


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    lines: list[Line] = pydantic.Field(min_length=2)
    note: str | None
    parent: Order | None
    children: list[Order]
    codes: set[int] = pydantic.Field(min_length=3)


async def test_json_is_what_the_schema_describes() -> None:
    for seed in range(20):
        value = schema_value(Order.model_json_schema(), random.Random(seed), WORDS)
        Order.model_validate_json(json.dumps(value), strict=True)
    schema = {"name": "order", "schema": Order.model_json_schema(), "strict": True}
    body: dict[str, Any] = {"response_format": {"type": "json_schema", "json_schema": schema}}
    (found,) = await whole(**body)
    Order.model_validate_json(found["message"]["content"])
    (again,) = await streamed(**body)
    assert again["text"] == found["message"]["content"]
    (any_object,) = await whole(response_format={"type": "json_object"})
    assert isinstance(json.loads(any_object["message"]["content"]), dict)


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "string", "pattern": "^a+$"}, "pattern"),
        ({"not": {}}, "not"),
        ({"$ref": "#/$defs/none"}, r"\$ref"),
        ({"$ref": "#"}, r"\$ref"),
        ({"type": "array", "minItems": 10**9, "items": {"type": "null"}}, "minItems"),
        ({"type": "string", "minLength": 10**9}, "minLength"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum"),
        ({"type": "array", "uniqueItems": True, "minItems": 3, "items": {"type": "boolean"}}, "uniqueItems"),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "levels"),
        ({"type": "what"}, "type"),
        (7, "schema"),
        ({"type": "array", "minItems": 9000, "items": {"type": "string", "minLength": 1000}}, "characters"),
        ({"type": "array", "minItems": 9000, "items": {"const": "x" * 1000}}, "characters"),
        ({"type": "array", "minItems": 9000, "items": {"enum": ["x" * 1000]}}, "characters"),
        ({"type": "array", "minItems": 9000, "items": {"properties": {"x" * 1000: {}}}}, "characters"),
        ({"type": "array", "minItems": 9000, "items": {"allOf": [{}] * 100}}, "members"),
        (
            {"type": "array", "minItems": 9000, "items": {"type": "null"} | dict.fromkeys(map(str, range(100)))},
            "members",
        ),
        ({"type": "array", "minItems": 9000, "uniqueItems": True, "items": {"type": "integer"}}, "uniqueItems"),
        ({"type": "object", "minProperties": 10**12}, "minProperties"),
        ({"type": "number", "minimum": 1, "multipleOf": 5e-324}, "multipleOf"),
    ],
)
async def test_a_schema_that_cannot_be_met_is_refused_by_name(schema: Any, keyword: str) -> None:
    body = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    with pytest.raises(InvalidRequest, match=keyword):
        await deltas(body)


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("chat", {"functions": [{"name": "f"}]}, "functions"),
        ("chat", {"modalities": ["text", "audio"]}, "modalities"),
        ("chat", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
        ("chat", {"response_format": {"type": "grammar"}}, "response_format.type"),
        ("completion", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("completion", {"prompt": [1, 2], "echo": True}, "echo"),
        ("completion", {"prompt": ["x"] * 600, "n": 2}, "n"),
        ("chat", {"n": 0}, "n"),
        ("chat", {"n": -1}, "n"),
        ("embedding", {"input": ["x"] * 2000, "dimensions": 1001}, "dimensions"),
        ("embedding", {"input": "x", "dimensions": 1_000_000}, "dimensions"),
        ("chat", {"n": 1024, "max_tokens": 100, "logprobs": True, "top_logprobs": 20}, "n"),
        ("chat", {"n": 2, "stop": ["x"] * 1000}, "stop"),
        ("chat", {"stop": ["x"] * 1000}, "stop"),
        ("completion", {"prompt": "a " * 5000, "n": 1000, "echo": True}, "echo"),
        ("chat", {"n": 1000, "tools": [LONG_NAME], "tool_choice": "required"}, "n"),
        ("embedding", {"input": "x", "dimensions": 0}, "dimensions"),
        ("embedding", {"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ("embedding", {"input": []}, "input"),
        ("embedding", {"input": None}, "input"),
        ("embedding", {"input": {}}, "input"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(kind: Kind, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await deltas(body, kind=kind)
    assert refused.value.param == param


async def test_stop_cuts_the_text() -> None:
    text = "".join((await run())[0])
    at = text.index(" ", 5)
    texts, finish = await run(stop=text[at : at + 3])
    assert ("".join(texts), finish) == (text[:at], "stop")
    assert ("".join((await run(stop=["no such text"]))[0])) == text


async def test_embeddings_have_the_dimensions_asked_for_as_numbers_and_as_base64() -> None:
    (plain,) = await deltas({"input": ["a", "b"], "dimensions": 8}, kind="embedding")
    (encoded,) = await deltas({"input": ["a", "b"], "dimensions": 8, "encoding_format": "base64"}, kind="embedding")
    numbers = [each["embedding"] for each in json.loads(plain.extra)]
    packed = [struct.unpack("<8f", base64.b64decode(each["embedding"])) for each in json.loads(encoded.extra)]
    assert [len(each) for each in numbers] == [8, 8]
    for one, other in zip(numbers, packed, strict=True):
        assert list(other) == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "body"), [("completion", {"prompt": ["a"]}), ("completion", {"prompt": "a", "echo": True})]
)
def test_only_plain_text_is_said_to_be_resumable(kind: Kind, body: dict[str, Any]) -> None:
    task = TaskRequest("h", "t", 1, kind, "synthetic", json.dumps(body), True)
    assert not SyntheticEngine(SyntheticConfig()).resumable(task)
