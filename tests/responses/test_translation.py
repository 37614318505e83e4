"""Responses and chats are translated without loss, and a streamed response is the whole one: laws of pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from tests.long_form import examples

from anywire.conversation_items import Item, checked_items
from anywire.errors import AgentLost, AnywireError, InvalidRequest, QueueFull, StreamCorrupted, TaskCancelled
from anywire.messages import Chunk
from anywire_gateway_openai.responses.answer import answered, failed_response, response_head
from anywire_gateway_openai.responses.events import ResponseEvents
from anywire_gateway_openai.responses.messages import chat_messages
from anywire_gateway_openai.responses.replay import replayed
from anywire_gateway_openai.responses.request import Asked, asked, chat_body, decoder, hints_of, members

_events: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)
TASK = "0123456789abcdef"
FUNCTION: dict[str, Any] = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": None}
OTHER: dict[str, Any] = {"type": "function", "name": "g", "description": "does g"}


def ask(**body: Any) -> Asked:
    text = json.dumps({"input": "hello", **body})
    return asked(decoder.decode(text), members.decode(text), {})


HEAD = response_head(ask(), TASK, "m", store=True)

# From items to messages and back

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
some_text = st.fixed_dictionaries({"type": st.just("input_text"), "text": texts})
image = st.fixed_dictionaries(
    {"type": st.just("input_image"), "image_url": texts, "detail": st.sampled_from(["auto", "low", "high"])}
)
audio = st.fixed_dictionaries(
    {
        "type": st.just("input_audio"),
        "input_audio": st.fixed_dictionaries({"data": texts, "format": st.sampled_from(["wav", "mp3"])}),
    }
)
file = st.fixed_dictionaries({"type": st.just("input_file"), "filename": texts, "file_data": texts})
parts = st.lists(st.one_of(some_text, image, audio, file), min_size=1, max_size=3)
user = st.fixed_dictionaries(
    {"type": st.just("message"), "role": st.sampled_from(["user", "system"]), "content": st.one_of(texts, parts)}
)
output = st.fixed_dictionaries(
    {"type": st.just("function_call_output"), "call_id": texts, "output": st.one_of(texts, parts)}
)
reasoning = st.fixed_dictionaries(
    {
        "type": st.just("reasoning"),
        "summary": st.just([]),
        "content": st.tuples(st.fixed_dictionaries({"type": st.just("reasoning_text"), "text": texts})).map(list),
    }
)
said = st.fixed_dictionaries({"type": st.just("message"), "role": st.just("assistant"), "content": texts})
call = st.fixed_dictionaries({"type": st.just("function_call"), "call_id": texts, "name": texts, "arguments": texts})
answer = st.tuples(
    st.lists(reasoning, max_size=1), st.lists(said, max_size=1), st.lists(call, max_size=3)
).map(lambda each: [*each[0], *each[1], *each[2]])  # fmt: skip
turns = st.lists(
    st.one_of(user.map(lambda each: [each]), output.map(lambda each: [each]), answer), min_size=1, max_size=8
).map(lambda all_of: [item for turn in all_of for item in turn])


def items_of(messages: Sequence[Any]) -> list[Item]:
    """The items that give these messages: the translation undone."""
    back: list[Item] = []
    for each in messages:
        if each["role"] == "tool":
            back.append(
                {
                    "type": "function_call_output",
                    "call_id": each["tool_call_id"],
                    "output": _parts(each["content"]),
                }
            )
        elif each["role"] != "assistant":
            content = _parts(each["content"])
            back.append({"type": "message", "role": each["role"], "content": content})
        else:
            if "reasoning_content" in each:
                content = [{"type": "reasoning_text", "text": each["reasoning_content"]}]
                back.append({"type": "reasoning", "summary": [], "content": content})
            if each["content"]:
                back.append({"type": "message", "role": "assistant", "content": each["content"]})
            for made in each.get("tool_calls", ()):
                function = made["function"]
                back.append({"type": "function_call", "call_id": made["id"], **function})
    return back


def _parts(content: Any) -> Any:
    if isinstance(content, str):
        return content
    kinds = {"text": "input_text", "image_url": "input_image", "input_audio": "input_audio", "file": "input_file"}
    found = []
    for part in content:
        inner = part[part["type"]]
        given = {"input_text": {"text": inner}, "input_audio": {"input_audio": inner}, "input_file": inner}
        kind = kinds[part["type"]]
        if kind == "input_image":
            found.append({"type": kind, "image_url": inner["url"], "detail": inner["detail"]})
        else:
            found.append({"type": kind, **given[kind]})
    return found


def plain(items: Sequence[Item]) -> list[Item]:
    """Items without what keeping adds; a content of one plain text as text."""
    bare = []
    for item in items:
        kept = {name: value for name, value in item.items() if name not in ("id", "status")}
        for member in ("content", "output"):
            found = kept.get(member)
            if isinstance(found, list) and len(found) == 1 and found[0]["type"] in ("input_text", "output_text"):
                kept[member] = found[0]["text"]
        bare.append(kept)
    return bare


@given(turns)
@settings(max_examples=examples(100), deadline=None)
def test_messages_hold_all_that_items_do_in_order(given_items: list[Item]) -> None:
    items = checked_items(given_items, "input")
    assert plain(items_of(chat_messages(None, items))) == plain(items)
    assert len({each["id"] for each in items}) == len(items)
    with_instructions = chat_messages("be brief", items)
    assert with_instructions[0] == {"role": "system", "content": "be brief"}
    assert with_instructions[1:] == chat_messages(None, items)


def test_developers_speak_as_the_system_and_calls_of_one_answer_are_one_message() -> None:
    items = checked_items(
        [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "one"},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"type": "message", "role": "assistant", "content": "yes"},
        ],
        "input",
    )
    system, asks, calls, tool, refusal, said_last = chat_messages(None, items)
    assert system == {"role": "system", "content": "be brief"}
    assert asks["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert (calls["content"], [each["id"] for each in calls["tool_calls"]]) == (None, ["1", "2"])
    assert tool == {"role": "tool", "tool_call_id": "1", "content": "one"}
    assert refusal == {"role": "assistant", "content": None, "refusal": "no"}
    assert said_last == {"role": "assistant", "content": "yes"}


# Answers, streamed and whole

calls = st.lists(st.tuples(texts, texts), max_size=3)
chat_message = st.fixed_dictionaries(
    {"reasoning": st.one_of(st.just(""), texts), "content": st.one_of(st.just(""), texts),
     "refusal": st.one_of(st.just(""), texts), "calls": calls}
)  # fmt: skip
finishes = st.sampled_from(["stop", "length", "content_filter"])


def message_of(drawn: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": drawn["content"] or None}
    if drawn["reasoning"]:
        message["reasoning_content"] = drawn["reasoning"]
    if drawn["refusal"]:
        message["refusal"] = drawn["refusal"]
    if drawn["calls"]:
        message["tool_calls"] = [
            {"id": f"call{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for at, (name, arguments) in enumerate(drawn["calls"])
        ]
    return message


def deltas_of(message: dict[str, Any], data: st.DataObject) -> list[dict[str, Any]]:
    """The message in pieces, as an engine streams it."""
    pieces: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for member in ("reasoning_content", "content", "refusal"):
        pieces += [{member: each} for each in split(message.get(member) or "", data)]
    for at, made in enumerate(message.get("tool_calls", ())):
        first, *rest = split(made["function"]["arguments"], data)
        head = {**made, "index": at, "function": {**made["function"], "arguments": first}}
        pieces.append({"tool_calls": [head]})
        pieces += [{"tool_calls": [{"index": at, "function": {"arguments": each}}]} for each in rest]
    return pieces


def split(text: str, data: st.DataObject) -> list[str]:
    cut = data.draw(st.integers(0, len(text)))
    return [each for each in (text[:cut], text[cut:]) if each] if text else []


def chunk(choice: dict[str, Any], **more: Any) -> Chunk:
    return Chunk("h", TASK, 1, 0, ("",), json.dumps([{"index": 0, **choice}]), **more)


USAGE = '{"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}'


def read(data: bytes) -> list[dict[str, Any]]:
    """Events, each as OpenAI's types take it."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, _, line = block.partition("\n")
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        _events.validate_python(event)
        found.append(event)
    return found


def timeless(response: Any) -> Any:
    return {name: value for name, value in response.items() if name not in ("created_at", "completed_at")}


@given(chat_message, finishes, st.data())
@settings(max_examples=examples(100), deadline=None)
def test_a_streamed_response_is_the_whole_one(drawn: dict[str, Any], finish: str, data: st.DataObject) -> None:
    message = message_of(drawn)
    whole = answered(dict(HEAD), TASK, "n", chunk({"message": message}, final=True, finish_reason=finish, usage=USAGE))
    Response.model_validate(whole)
    encoder = ResponseEvents(dict(HEAD), TASK)
    pieces = [chunk({"delta": each}) for each in deltas_of(message, data)]
    pieces.append(chunk({"delta": {}, "finish_reason": finish}, final=True, usage=USAGE))
    events = []
    while pieces:
        some = data.draw(st.integers(1, len(pieces)))
        events += read(encoder.events(pieces[:some], "n"))
        del pieces[:some]
    events += read(encoder.completed())
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert [each["type"] for each in events[:2]] == ["response.created", "response.in_progress"]
    assert timeless(events[-1]["response"]) == timeless(whole)
    assert events[-1]["type"] == f"response.{whole['status']}"
    check_items(events, whole)
    again = read(replayed(whole))
    assert again[-1]["response"] == whole
    check_items(again, whole)
    assert read(replayed(whole, 3)) == again[4:]


def check_items(events: list[dict[str, Any]], whole: Any) -> None:
    """Each item is added before its pieces and done after them, and consists of them."""
    pieces: dict[int, str] = {}
    done: dict[int, Item] = {}
    for event in events:
        place: int = event.get("output_index", -1)
        if event["type"] == "response.output_item.added":
            assert place == len(pieces)
            assert event["item"]["status"] == "in_progress"
            pieces[place] = ""
        elif event["type"].endswith(".delta"):
            assert place not in done
            assert event["item_id"] == whole["output"][place]["id"]
            pieces[place] += event["delta"]
        elif event["type"] == "response.output_item.done":
            done[place] = event["item"]
    assert [done[place] for place in sorted(done)] == whole["output"]
    for place, item in done.items():
        content = item.get("content", ())
        texts = [part.get("text", part.get("refusal")) for part in content] or [item.get("arguments", "")]
        assert "".join(texts) == pieces[place]


@given(chat_message)
@settings(max_examples=examples(60), deadline=None)
def test_what_was_answered_goes_back_to_the_model_as_it_was(drawn: dict[str, Any]) -> None:
    message = message_of(drawn)
    whole = answered(dict(HEAD), TASK, "m", chunk({"message": message}, final=True, finish_reason="stop"))
    (back,) = chat_messages(None, whole["output"])
    if not any(drawn.values()):
        message["content"] = ""  # an answer without anything is an empty text
    assert {name: value for name, value in back.items() if value} == {
        name: value for name, value in message.items() if value
    }


def test_plain_text_comes_with_its_usage_and_ends_where_it_was_cut_off() -> None:
    whole = answered(dict(HEAD), TASK, "m", Chunk("h", TASK, 1, 0, ("some text",), "", True, "length", USAGE))
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert whole["output"][0]["status"] == "incomplete"
    assert whole["usage"] == {
        "input_tokens": 3, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 7,
    }  # fmt: skip
    encoder = ResponseEvents(dict(HEAD), TASK)
    events = read(encoder.events([Chunk("h", TASK, 1, 0, ("some", " text"))], "m"))
    events += read(encoder.events([Chunk("h", TASK, 1, 2, (), "", True, "length", USAGE)], "m"))
    assert [each["delta"] for each in events if "delta" in each] == ["some", " text"]
    assert timeless(read(encoder.completed())[0]["response"]) == timeless(whole)


def test_log_probabilities_and_annotations_come_with_their_text() -> None:
    said_of = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "a", "logprob": -0.5}]}
    quoted = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "title": "t", "url": "u"}}
    choice = {"message": {"content": "a", "annotations": [quoted]}, "logprobs": {"content": [said_of]}}
    whole = answered(dict(HEAD), TASK, "m", chunk(choice, final=True))
    (part,) = whole["output"][0]["content"]
    assert part["logprobs"][0]["bytes"] == []
    assert part["annotations"] == [{"type": "url_citation", "start_index": 0, "end_index": 1, "title": "t", "url": "u"}]
    Response.model_validate(whole)
    streamed = {"delta": choice["message"], "logprobs": choice["logprobs"]}
    encoder = ResponseEvents(dict(HEAD), TASK)
    events = read(encoder.events([chunk(streamed, final=True)], "m"))
    assert "response.output_text.annotation.added" in [each["type"] for each in events]
    assert timeless(read(encoder.completed())[0]["response"]) == timeless(whole)


def test_thought_between_texts_makes_further_items_and_late_arguments_stay_with_their_call() -> None:
    encoder = ResponseEvents(dict(HEAD), TASK)
    deltas: list[dict[str, Any]] = [
        {"content": "a"},
        {"reasoning": "hm"},
        {"content": "b"},
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 1, "id": "2", "function": {"name": "g", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
        {"content": "c"},
    ]
    read(encoder.events([*(chunk({"delta": each}) for each in deltas), chunk({"delta": {}}, final=True)], "m"))
    assert encoder.response is not None
    output = encoder.response["output"]
    assert [each["type"] for each in output] == [
        "message", "reasoning", "message", "function_call", "function_call", "message",
    ]  # fmt: skip
    assert output[3]["arguments"] == "{}"
    assert output[5]["content"][0]["text"] == "c"
    assert len({each["id"] for each in output}) == 6


def test_of_an_answer_that_was_cut_off_the_last_item_alone_is_incomplete() -> None:
    calls = [{"id": str(at), "function": {"name": "f", "arguments": "{"}} for at in range(2)]
    message = {"content": "a", "tool_calls": calls}
    whole = answered(dict(HEAD), TASK, "m", chunk({"message": message}, final=True, finish_reason="length"))
    assert [each["status"] for each in whole["output"]] == ["completed", "completed", "incomplete"]


@pytest.mark.parametrize("extra", ["{", "[{}", '[{"index":0,"delta":', "3", '"text"'])
def test_an_answer_that_cannot_be_read_is_an_error(extra: str) -> None:
    with pytest.raises(StreamCorrupted):
        answered(dict(HEAD), TASK, "m", Chunk("h", TASK, 1, 0, ("",), extra, True))


@pytest.mark.parametrize(
    "extra",
    [
        '[{"delta": 3}]',
        '[{"index": 1, "message": {"content": "x"}}]',
        "[]",
        "[{}]",
        '[{"message": {"content": 3, "tool_calls": ["x", {}], "annotations": ["x"]}}]',
    ],
)
def test_an_answer_with_nothing_in_it_is_an_empty_text_or_what_there_is(extra: str) -> None:
    Response.model_validate(answered(dict(HEAD), TASK, "m", Chunk("h", TASK, 1, 0, ("",), extra, True)))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AgentLost("gone"), "failed", "server_error"),
        (QueueFull("full"), "failed", "rate_limit_exceeded"),
        (InvalidRequest("wrong", param="p"), "failed", "invalid_prompt"),
        (TaskCancelled("cancelled"), "cancelled", None),
    ],
)
def test_what_has_failed_says_why(error: AnywireError, status: str, code: str | None) -> None:
    failed = failed_response(dict(HEAD), error)
    assert (failed["status"], (failed["error"] or {}).get("code")) == (status, code)
    Response.model_validate(failed)
    assert read(replayed(failed))[-1]["type"] == "response.failed"
    encoder = ResponseEvents(dict(HEAD), TASK)
    read(encoder.events([Chunk("h", TASK, 1, 0, ("te",))], "m"))
    (event,) = read(encoder.failed(error))
    assert (event["type"], event["response"]["status"]) == ("response.failed", "failed")
    early = read(ResponseEvents(dict(HEAD), TASK).failed(error))
    assert [each["type"] for each in early] == ["response.created", "response.in_progress", "response.failed"]


# What a request asks for


def body_of(**body: Any) -> dict[str, Any]:
    return chat_body(ask(**body), [], "m")


def test_a_request_becomes_the_chat_that_asks_the_same() -> None:
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    body = body_of(
        instructions="be brief", max_output_tokens=7, temperature=0.5, top_p=0.9, stream=True, user="u",
        prompt_cache_key="k", parallel_tool_calls=False, tools=[FUNCTION, OTHER], tool_choice="required",
        text={"format": form, "verbosity": "low"}, reasoning={"effort": "low"}, seed=3, models=["n"],
        include=["message.output_text.logprobs"], top_logprobs=2, metadata={"a": "b"},
    )  # fmt: skip
    assert body == {
        "model": "m", "models": ["n"],
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 7, "temperature": 0.5,
        "top_p": 0.9, "user": "u", "prompt_cache_key": "k", "parallel_tool_calls": False, "reasoning_effort": "low",
        "verbosity": "low", "logprobs": True, "top_logprobs": 2, "seed": 3, "tool_choice": "required",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "g", "description": "does g"}},
        ],
    }  # fmt: skip


def test_tools_that_are_allowed_are_those_that_are_offered() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    body = body_of(tools=[FUNCTION, OTHER], tool_choice=allowed)
    assert (body["tool_choice"], [each["function"]["name"] for each in body["tools"]]) == ("required", ["g"])
    one = body_of(tools=[FUNCTION, OTHER], tool_choice={"type": "function", "name": "f"})
    assert one["tool_choice"] == {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "owner", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
         "input[0].content[0].file_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]},
         "input[0].content[0].file_url"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"type": ["message"]}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": 3}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": [3]}]}, "input[0].summary[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"previous_response_id": "resp_1", "conversation": "conv_1"}, "conversation"),
        ({"background": True, "stream": True}, "stream"),
        ({"background": True, "store": False}, "store"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "text"}}, "response_format"),
        ({"truncation": "some"}, "truncation"),
        ({"metadata": {"a": 3}}, "metadata.a"),
        ({"metadata": {str(each): "" for each in range(17)}}, "metadata"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "c"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "h"}}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        body_of(**body)
    assert refused.value.param == param
    assert refused.value.message.startswith(param.split("[")[0].split(".")[0]) or param in refused.value.message


def test_what_changes_nothing_is_named() -> None:
    asked_for = ask(
        input=[{"type": "reasoning", "summary": [], "encrypted_content": "x"}, {"role": "user", "content": "y"}],
        truncation="auto", max_tool_calls=3, prompt_cache_retention="24h", stream_options={"include_obfuscation": True},
        reasoning={"summary": "auto"}, include=["file_search_call.results", "reasoning.encrypted_content"],
        top_logprobs=2,
    )  # fmt: skip
    assert set(asked_for.ignored) == {
        "max_tool_calls", "prompt_cache_retention", "stream_options", "truncation", "reasoning.summary", "include",
        "top_logprobs", "reasoning.encrypted_content",
    }  # fmt: skip
    assert ask(truncation="disabled", include=["reasoning.encrypted_content"]).ignored == ()


def test_short_metadata_are_hints() -> None:
    assert hints_of({"task_type": "chat", "long": "x" * 200, "": "x", "lines": "a\nb"}) == {"task_type": "chat"}
