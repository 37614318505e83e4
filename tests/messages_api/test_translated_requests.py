"""Requests for messages become chats without loss: laws of pure functions, and what is refused or has no effect."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.demand import read_demand
from anywire.errors import InvalidRequest
from anywire_gateway_openai.anthropic.counting import estimated_tokens
from anywire_gateway_openai.anthropic.messages import Given, chat_messages
from anywire_gateway_openai.anthropic.request import Asked, asked, decoder

TOOL: dict[str, Any] = {"name": "look", "description": "looks", "input_schema": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def ask(**body: Any) -> Asked:
    text = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9} | body)
    return asked(decoder.decode(text), json.loads(text))


# From messages to a chat and back

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
text = st.fixed_dictionaries({"type": st.just("text"), "text": texts})
source = st.fixed_dictionaries({"type": st.just("url"), "url": texts.map(lambda each: f"https://{each}")})
image = st.fixed_dictionaries({"type": st.just("image"), "source": source})
document = st.fixed_dictionaries(
    {
        "type": st.just("document"),
        "source": st.fixed_dictionaries(
            {"type": st.just("base64"), "media_type": st.just("application/pdf"), "data": texts}
        ),
        "title": texts,
    }
)
parts = st.lists(st.one_of(text, image, document), min_size=1, max_size=3)
result = st.fixed_dictionaries(
    {"type": st.just("tool_result"), "tool_use_id": texts, "content": st.one_of(texts, parts)}
)
thinking = st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts, "signature": st.just("")})
use = st.fixed_dictionaries(
    {
        "type": st.just("tool_use"),
        "id": texts,
        "name": texts,
        "input": st.dictionaries(texts, st.integers(), max_size=2),
    }
)
user = st.lists(st.one_of(text, image, document, result), min_size=1, max_size=4)
assistant = st.tuples(st.lists(thinking, max_size=1), st.lists(text, max_size=1), st.lists(use, max_size=2)).map(
    lambda each: [*each[0], *each[1], *each[2]] or [{"type": "text", "text": ""}]
)
turns = st.lists(
    st.one_of(st.tuples(st.just("user"), user), st.tuples(st.just("assistant"), assistant)), min_size=1, max_size=6
)


def _blocks(content: Any) -> Any:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    found: list[Any] = []
    for part in content:
        if part["type"] == "image_url":
            found.append({"type": "image", "source": {"type": "url", "url": part["image_url"]["url"]}})
        elif part["type"] == "file":
            head, _, data = part["file"]["file_data"].partition(";base64,")
            kind = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
            found.append({"type": "document", "source": kind, "title": part["file"]["filename"]})
        else:
            found.append(part)
    return found


def undone(messages: list[Any]) -> list[tuple[str, Any]]:
    """The blocks that give these messages, each with who says it."""
    back: list[tuple[str, Any]] = []
    for each in messages:
        role, content = each["role"], each["content"]
        if role == "tool":
            block = {"type": "tool_result", "tool_use_id": each["tool_call_id"], "content": _blocks(content)}
            back.append(("user", block))
            continue
        if each.get("reasoning_content"):
            back.append((role, {"type": "thinking", "thinking": each["reasoning_content"], "signature": ""}))
        back += [(role, block) for block in _blocks(content or []) if block.get("text") != ""]
        for made in each.get("tool_calls", ()):
            function = made["function"]
            given_input = json.loads(function["arguments"])
            block = {"type": "tool_use", "id": made["id"], "name": function["name"], "input": given_input}
            back.append((role, block))
    return back


@given(turns)
@settings(max_examples=examples(100), deadline=None)
def test_a_chat_holds_all_that_messages_do_in_order(given_turns: list[tuple[str, list[Any]]]) -> None:
    messages, ignored = chat_messages("be brief", [Given(role, content) for role, content in given_turns])
    expected = []
    for role, content in given_turns:
        for block in content:
            plain = dict(block)
            if block["type"] == "tool_result":
                plain["content"] = _blocks(block["content"])
            if block.get("text") != "":
                expected.append((role, plain))
    assert messages[0] == {"role": "system", "content": "be brief"}
    assert undone(messages[1:]) == expected
    assert ignored == []


def test_every_member_becomes_what_a_chat_calls_it() -> None:
    found = ask(
        model="m",
        stream=True,
        system=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        stop_sequences=["END"],
        temperature=0.5,
        top_k=3,
        seed=7,
        metadata={"user_id": "u-1"},
        tools=[TOOL],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    )
    schema = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert found.chat == {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "hello"},
        ],
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "stop": ["END"],
        "temperature": 0.5,
        "top_k": 3,
        "seed": 7,
        "user": "u-1",
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "tools": [{"type": "function", "function": {"name": "look", "description": "looks",
                                                    "parameters": {"type": "object"}}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }  # fmt: skip
    assert (found.ignored, found.stop_sequences) == ((), ("END",))
    demand = read_demand(msgspec.json.encode(found.chat).decode())
    assert (demand.needs, demand.max_tokens) == (("json", "tools"), 9)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_the_choice_of_a_tool(choice: Any, expected: Any) -> None:
    assert ask(tools=[TOOL], tool_choice=choice).chat["tool_choice"] == expected


def test_what_has_no_effect_is_named() -> None:
    found = ask(
        system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
        thinking={"type": "enabled", "budget_tokens": 2000},
        service_tier="auto",
        tools=[{**TOOL, "input_examples": [{}]}],
        messages=[
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "theirs"},
                    {"type": "redacted_thinking", "data": "zzz"},
                    {"type": "tool_use", "id": "1", "name": "look", "input": {}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "is_error": True}]},
        ],
    )
    assert found.ignored == (
        "service_tier", "thinking", "input_examples", "cache_control", "is_error", "signature", "redacted_thinking",
    )  # fmt: skip
    assert found.chat["messages"][-1] == {"role": "tool", "tool_call_id": "1", "content": "error"}


def test_what_agents_send_with_every_request_does_not_end_them() -> None:
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    found = ask(
        context_management=edits,
        thinking={"type": "adaptive"},
        output_config={"effort": "high", "task_budget": {"type": "tokens", "total": 20_000}},
        fallbacks="default",
        mcp_servers=[],
    )
    assert found.ignored == ("thinking", "context_management", "fallbacks", "output_config")
    assert found.chat == {**ask().chat, "reasoning_effort": "high"}


def test_a_long_name_of_a_user_is_shortened_to_one_of_its_own() -> None:
    names = [ask(metadata={"user_id": "u" * 140 + end}).chat["user"] for end in ("a", "b", "a")]
    assert {len(name) for name in names} == {64}
    assert names[0] == names[2] != names[1]
    assert ask(metadata={"user_id": "u" * 64}).chat["user"] == "u" * 64


def test_thinking_that_is_not_told_is_nothing_that_a_model_has_thought() -> None:
    content = [{"type": "thinking", "thinking": "", "signature": "s"}, {"type": "text", "text": "x"}]
    found = ask(messages=[{"role": "user", "content": "q"}, {"role": "assistant", "content": content}])
    assert found.chat["messages"][1] == {"role": "assistant", "content": "x"}


BLOCK = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"system": [{"type": "image", "source": {}}]}, "system[0].type"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"stop": "x"}, "stop"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"compaction": {"type": "x"}}, "compaction"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "x"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format"),
        ({"metadata": {"user_id": 7}}, "metadata.user_id"),
        ({"messages": [{"role": "user", "content": [{"type": "server_tool_use"}]}]}, f"{BLOCK}.type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, f"{BLOCK}.text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, f"{BLOCK}.source"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
            f"{BLOCK}.source.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url"}}]}]},
            f"{BLOCK}.source.type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f"}]}]},
            f"{BLOCK}.input",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": 7}]}]},
            f"{BLOCK}.content",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask(**body)
    assert refused.value.param == param
    assert param in refused.value.message


def test_documents_of_text_are_text() -> None:
    sources: list[Any] = [
        {"type": "text", "media_type": "text/plain", "data": "a"},
        {"type": "content", "content": "b"},
        {"type": "content", "content": [{"type": "text", "text": "c"}]},
    ]
    content = [{"type": "document", "source": each, "title": "t"} for each in sources]
    found = ask(messages=[{"role": "user", "content": content}])
    assert [part["text"] for part in found.chat["messages"][0]["content"]] == ["a", "b", "c"]
    assert found.ignored == ("title",)


@given(st.lists(texts, min_size=1, max_size=5), texts)
def test_more_text_is_never_estimated_to_have_fewer_tokens(some: list[str], more: str) -> None:
    messages = [{"role": "user", "content": each} for each in some]
    fewer = estimated_tokens({"messages": messages})
    assert fewer >= len("".join(some)) / 4
    assert estimated_tokens({"messages": [*messages, {"role": "user", "content": more}]}) > fewer
    assert estimated_tokens({"messages": messages, "tools": [TOOL]}) > fewer
