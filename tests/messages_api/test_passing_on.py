"""Where the servers of all agents speak Anthropic's API themselves, requests and answers are passed on as they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anthropic
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.fake_openai_server import FakeServer, collect, engine_for, event, saying, server
from tests.integration.gateway_serving import joined, says
from tests.long_form import examples
from tests.messages_api.asking import ASK, House, asking
from tests.messages_api.told_messages import events_of, put_together, said_in

from anywire.demand import beyond_text, read_demand
from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest, StreamCorrupted
from anywire.messages import Chunk, TaskRequest
from anywire.native_api import COUNT_TOKENS, MESSAGES, endpoint_of, marked
from anywire.offers import Offer
from anywire_engine_openai import OpenAIEngine, native, upstream
from anywire_gateway_openai.anthropic.native import NativeEvents, is_native, native_count

__all__ = ["server"]  # a fixture

CITED: dict[str, Any] = {"type": "char_location", "cited_text": "x", "document_index": 0, "start_char_index": 0,
                         "end_char_index": 1, "document_title": None, "file_id": None}  # fmt: skip
CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "so it is", "signature": "signed"},
    {"type": "text", "text": "a cat", "citations": [CITED]},
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "cats"}},
    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 7}},
]
USAGE = {"input_tokens": 4, "cache_read_input_tokens": 6, "cache_creation_input_tokens": 0, "output_tokens": 5}
MESSAGE: dict[str, Any] = {
    "id": "theirs", "type": "message", "role": "assistant", "model": "their-name", "content": CONTENT,
    "stop_reason": "tool_use", "stop_sequence": None, "usage": USAGE,
}  # fmt: skip


def steps() -> list[dict[str, Any]]:
    """The events of `MESSAGE`."""

    def block(index: int, head: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"type": "content_block_start", "index": index, "content_block": head},
            *[{"type": "content_block_delta", "index": index, "delta": each} for each in deltas],
            {"type": "content_block_stop", "index": index},
        ]

    begun = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}}
    return [
        {"type": "message_start", "message": begun},
        {"type": "ping"},
        *block(0, {"type": "thinking", "thinking": "", "signature": ""},
               {"type": "thinking_delta", "thinking": "so "}, {"type": "thinking_delta", "thinking": "it is"},
               {"type": "signature_delta", "signature": "signed"}),
        *block(1, {"type": "text", "text": ""},
               {"type": "text_delta", "text": "a "}, {"type": "citations_delta", "citation": CITED},
               {"type": "text_delta", "text": "cat"}),
        *block(2, {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
               {"type": "input_json_delta", "partial_json": '{"query": '},
               {"type": "input_json_delta", "partial_json": '"cats"}'}),
        *block(3, {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
               {"type": "input_json_delta", "partial_json": ""},
               {"type": "input_json_delta", "partial_json": '{"at": 7}'}),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
         "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]  # fmt: skip


def written(*events: dict[str, Any]) -> bytes:
    return b"".join([f"event: {each['type']}\n".encode() + event(each) for each in events])


@asynccontextmanager
async def speaking(**settings: Any) -> AsyncIterator[tuple[House, FakeServer]]:
    """A gateway with an engine whose server speaks the API, and that server."""
    server = FakeServer()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("count_tokens"):
            return web.json_response({"input_tokens": 12})
        if not server.requests[-1].get("stream"):
            return web.json_response(MESSAGE)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(written(*steps()))
        return response

    server.handler = answer
    server.models = {"data": [{"id": "their-name"}]}
    await server.up()
    config = OpenAIEngine.Config(
        base_url=server.url, refresh_interval=0, models={"m": "their-name"}, apis=["messages"], api_key="k", **settings
    )
    try:
        async with asking(OpenAIEngine(config)) as at:
            yield at, server
    finally:
        await server.down()


NATIVE: dict[str, Any] = {
    **ASK,
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    "container": "c-1",
}
"""What no chat can say."""


@pytest.mark.parametrize("always_stream", [False, True])
async def test_what_is_asked_and_answered_is_passed_on_whole(always_stream: bool) -> None:
    async with speaking(always_stream=always_stream) as (at, server):
        trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        async with at.http.post("/v1/messages", json=NATIVE, headers=trace) as answer:
            message, headers = await answer.json(), answer.headers
        whole = server.requests[-1]
        async with at.http.post("/v1/messages", json={**NATIVE, "stream": True}) as answer:
            events = events_of(await answer.read())
        (ended, streamed) = [await at.served.observer.ended.get() for _ in range(2)]
    assert whole == {**NATIVE, "model": "their-name", "stream": always_stream}
    assert server.requests[-1] == {**NATIVE, "model": "their-name", "stream": True}
    assert server.paths[-2:] == ["/v1/messages"] * 2
    assert server.headers[0]["x-api-key"] == server.headers[-2]["x-api-key"] == "k"
    assert server.headers[-2]["anthropic-version"] == "2023-06-01"
    assert server.headers[-2]["traceparent"] == trace["traceparent"]
    ours = {"id": f"msg_{headers['x-anywire-task']}", "model": "m"}
    assert message == {**MESSAGE, **ours}
    expected = [each for each in steps() if each["type"] != "ping"]
    expected[0]["message"] |= {"id": events[0]["message"]["id"], "model": "m"}
    assert events == expected
    for each in (ended, streamed):
        assert (each.error, each.prompt_tokens, each.tokens) == ("", 10, 5), each


async def test_what_a_client_wants_beyond_the_api_reaches_the_server_as_its_header() -> None:
    async with speaking() as (at, server):
        await at.client.beta.messages.create(
            **ASK, betas=["context-management-2025-06-27", "x-1"], context_management={"edits": []}
        )
        assert server.headers[-1]["anthropic-beta"] == "context-management-2025-06-27,x-1"
        assert server.requests[-1]["context_management"] == {"edits": []}
        assert "anywire_betas" not in server.requests[-1]
        wanted = {"anthropic-beta": "x-1"}
        async with at.http.post("/v1/messages/count_tokens", json=ASK, headers=wanted) as answer:
            assert answer.status == 200
        assert server.headers[-1]["anthropic-beta"] == "x-1"
        async with at.http.post("/v1/messages", json=ASK) as answer:
            assert answer.status == 200
        assert "anthropic-beta" not in server.headers[-1]
        asked = len(server.requests)
        async with at.http.post("/v1/messages", json=ASK, headers={"anthropic-beta": 'x", "model": "y'}) as answer:
            assert (await answer.json())["error"]["details"]["param"] == "anthropic-beta"
        assert len(server.requests) == asked


@pytest.mark.parametrize("member", ["anywire_api", "anywire_betas"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_what_names_an_endpoint_never_stands_in_a_body_twice(path: str, member: str) -> None:
    async with speaking() as (at, server), at.http.post(path, json={**ASK, member: None}) as answer:
        assert (answer.status, (await answer.json())["error"]["details"]["param"]) == (400, member)
    assert server.requests == []


async def test_a_server_that_answers_a_stream_with_a_whole_message() -> None:
    async with speaking() as (at, server):
        server.handler = saying(200, MESSAGE)
        async with at.client.messages.stream(**ASK) as stream:
            texts = [text async for text in stream.text_stream]
            streamed = await stream.get_final_message()
    assert texts == ["a cat"]
    assert said_in(streamed.content) == CONTENT
    assert (streamed.stop_reason, streamed.usage.output_tokens) == ("tool_use", 5)
    assembly = native.NativeAssembly()
    for delta in native.streamed(json.dumps(MESSAGE).encode()):
        assembly.add(delta)
    assert json.loads(assembly.whole().extra) == MESSAGE


@pytest.mark.parametrize("hosts", [(), ("127.0.0.1",)])
async def test_a_server_that_takes_another_key_as_bearer_gets_its_own_header_alone(
    hosts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "OWN_HEADER_HOSTS", hosts)
    async with speaking() as (at, server):
        await at.client.messages.create(**ASK)
        asked = server.headers[-1]
        server.handler = saying(200, {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]})
        async with at.http.post("/v1/chat/completions", json=ASK) as answer:
            assert answer.status == 200
    assert asked["x-api-key"] == "k"
    assert ("Authorization" in asked) == (not hosts)
    assert server.headers[-1]["Authorization"] == "Bearer k"


async def test_tokens_are_counted_by_the_server() -> None:
    async with speaking() as (at, server):
        answer = await at.client.messages.with_raw_response.count_tokens(model="m", messages=ASK["messages"])
    assert (await answer.parse()).input_tokens == 12
    assert "x-anywire-estimated" not in answer.headers
    assert server.requests == [{"model": "their-name", "messages": ASK["messages"]}]
    assert server.paths[-1] == "/v1/messages/count_tokens"


async def test_the_client_reads_what_is_passed_on() -> None:
    async with speaking() as (at, _):
        whole = await at.client.messages.create(**ASK)
        async with at.client.messages.stream(**ASK) as stream:
            streamed = await stream.get_final_message()
    assert said_in(streamed.content) == said_in(whole.content) == CONTENT
    assert streamed.usage.output_tokens == whole.usage.output_tokens == 5


async def test_with_an_agent_that_does_not_speak_it_all_is_translated() -> None:
    async with speaking() as (at, server):
        other = says("from the other")
        async with joined(at.served, [at.engine, other]):
            with pytest.raises(anthropic.BadRequestError):
                await at.client.messages.create(**ASK, extra_body={"container": "c-1"})
            answer = await at.client.messages.create(**ASK, extra_headers={"x-anywire-prefer": "agent-2"})
            assert answer.content[0].text == "from the other"
        assert server.requests == []


@pytest.mark.parametrize(
    ("handler", "status", "kind"),
    [
        (saying(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "no such tool"}}), 400,
         "invalid_request_error"),
        (saying(529, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}), 529,
         "overloaded_error"),
        (saying(200, {"choices": []}), 500, "api_error"),
        (saying(200, {**MESSAGE, "content": [], "stop_reason": "end_turn", "usage": {}}), 500, "api_error"),
    ],
)  # fmt: skip
async def test_errors_of_the_server(handler: Any, status: int, kind: str) -> None:
    async with speaking() as (at, server):
        server.handler = handler
        with pytest.raises(anthropic.APIStatusError) as failed:
            await at.client.messages.create(**ASK, extra_headers={"x-anywire-attempts": "1"})
    assert (failed.value.status_code, failed.value.type) == (status, kind)


@pytest.mark.parametrize(
    ("said", "status"),
    [("overloaded_error", 529), ("rate_limit_error", 429), ("invalid_request_error", 400), ("timeout_error", 504)],
)
@pytest.mark.parametrize("before", [1, 4])
async def test_an_error_in_a_stream_is_told_as_what_it_is(said: str, status: int, before: int) -> None:
    fault = {"type": "error", "error": {"type": said, "message": "no"}}

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(written(*steps()[:before], fault))
        return response

    async with speaking() as (at, server):
        server.handler = handler
        once = {"x-anywire-attempts": "1"}
        async with at.http.post("/v1/messages", json={**ASK, "stream": True}, headers=once) as answer:
            data = await answer.read()
    assert answer.status == (status if before == 1 else 200)
    told = json.loads(data) if before == 1 else events_of(data)[-1]
    assert told["error"]["type"] == said


def task(stream: bool = True, endpoint: str = MESSAGES) -> TaskRequest:
    return TaskRequest("hub", "t", 1, "chat", "m1", marked(json.dumps(ASK), endpoint), stream=stream)


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (written(steps()[0]), "ended the stream"),
        (written(steps()[0], {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}), "busy"),
        (b"data: [1]\n\n", "no JSON object"),
        (written({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}), "single token"),
        (written(*[steps()[0]] * 1001), "says nothing"),
    ],
)
async def test_a_stream_that_is_no_answer_fails(server: FakeServer, sent: bytes, fault: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sent)
        return response

    server.handler = handler
    async with engine_for(server.url, refresh_interval=0, apis=["messages"]) as engine:
        assert engine.status().offers[0].features["api:messages"]
        with pytest.raises(EngineFailed, match=fault):
            await collect(engine, task())
        assert not engine.resumable(task())


@given(st.lists(st.integers(0, 10_000), max_size=6))
@settings(max_examples=examples(40), deadline=None)
def test_however_a_stream_is_cut_the_whole_is_the_message(cuts: list[int]) -> None:
    data = written(*steps())
    ends = sorted({0, len(data), *[each % len(data) for each in cuts]})
    stream, assembly = native.NativeStream(), native.NativeAssembly()
    for begin, end in pairwise(ends):
        for delta in stream.read(data[begin:end]):
            assembly.add(delta)
    stream.end()
    whole = assembly.whole()
    assert json.loads(whole.extra) == MESSAGE
    assert whole == Delta("a cat", whole.extra, "tool_calls", whole.usage)
    assert json.loads(whole.usage) == {
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 6},
    }  # fmt: skip


# What travels


def test_a_body_names_its_endpoint_and_needs_a_server_that_speaks_it() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://x"}}
    body = {**ASK, "messages": [{"role": "user", "content": [image]}], "metadata": {"user_id": "u"}, "tools": [{}]}
    text = marked("  " + json.dumps(body), MESSAGES)
    assert json.loads(text) == {"anywire_api": MESSAGES, **body}
    assert endpoint_of(text) == MESSAGES
    assert endpoint_of(json.dumps(ASK)) == ""
    assert endpoint_of(marked(json.dumps(ASK), "../admin")) == ""
    demand = read_demand(text)
    assert (demand.needs, demand.max_tokens, dict(demand.hints)) == (("api:messages", "tools", "vision"), 50, {})
    assert beyond_text(text) == "anywire_api"
    shot = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "see"}, image]}
    seen = {**ASK, "messages": [{"role": "user", "content": [shot]}]}
    assert read_demand(marked(json.dumps(seen), MESSAGES)).needs == ("api:messages", "vision")
    assert read_demand(marked(json.dumps(ASK), COUNT_TOKENS)).needs == ("api:messages",)
    for strange in ('{"anywire_api": ["messages"]}', '{"anywire_api": "other"}', '{"anywire_api": {}}'):
        assert read_demand(strange).needs == ()
    assert Offer("m").lacks("api:messages")
    assert not Offer("m", features={"api:messages": True}).lacks("api:messages")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_no_client_names_an_endpoint_itself(path: str) -> None:
    body = {"model": "m", "messages": ASK["messages"], "input": "x", "anywire_api": "messages"}
    if path.endswith("responses"):
        del body["messages"]
    async with speaking() as (at, server), at.http.post(path, json=body) as answer:
        assert (answer.status, (await answer.json())["error"]["param"]) == (400, "anywire_api")
    assert server.requests == []


@pytest.mark.parametrize(
    "extra",
    ["[]", "{", '{"type": "Bad\\ntype"}', '{"type": "message_start"}', '{"type": "message_start", "message": 7}'],
)
def test_what_an_agent_says_is_checked_before_it_is_passed_on(extra: str) -> None:
    with pytest.raises(StreamCorrupted):
        NativeEvents("t").events([Chunk("h", "t", 1, 0, ("",), extra)], "m")
    with pytest.raises(StreamCorrupted):
        native_count(Chunk("h", "t", 1, 0, ("",), extra))


def test_a_chats_answer_that_names_a_type_is_no_message_of_a_server() -> None:
    extra = json.dumps({"choices": [{"index": 0, "delta": {"content": "x"}}], "type": "chunk"})
    assert not is_native(Chunk("h", "t", 1, 0, ("x",), extra))
    assert is_native(Chunk("h", "t", 1, 0, ("x",), json.dumps(MESSAGE)))


def test_line_breaks_in_what_is_passed_on_end_no_event() -> None:
    text = json.dumps({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "\u2028x"}},
                      indent=1, ensure_ascii=False)  # fmt: skip
    events = NativeEvents("t")
    begun = Chunk("h", "t", 1, 0, ("",), json.dumps(steps()[0]))
    told = events_of(events.events([begun, Chunk("h", "t", 1, 1, ("x",), text)], "m"))
    assert told[1]["delta"]["text"] == "\u2028x"
    assert events.events([Chunk("h", "t", 1, 2, final=True)], "m").count(b"\n\n") == 1


def test_an_error_is_read_as_one() -> None:
    refused: dict[str, Any] = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "prompt is too long"},
    }
    with pytest.raises(InvalidRequest) as fault:
        native.whole(json.dumps({**refused, "error": {**refused["error"], "code": 400}}).encode(), MESSAGES)
    assert fault.value.detail_code == "context_length_exceeded"
    assert put_together(steps()[:1] + steps()[-2:])["stop_reason"] == "tool_use"
