"""The engine ``openai`` against a real HTTP server on loopback, well behaved and not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import msgspec
import pydantic
import pytest
from aiohttp import web

from anywire.engine import Delta
from anywire.errors import ConfigError, EngineFailed, InvalidRequest, TaskError, from_wire, to_wire
from anywire.messages import TaskRequest
from anywire.offers import MAX_OFFERS, Offer
from anywire_engine_openai import OpenAIEngine

from .fake_openai_server import (
    DONE,
    HELLO,
    USAGE,
    FakeServer,
    Watched,
    answering,
    collect,
    engine,
    engine_for,
    event,
    request,
    saying,
    server,
    step,
    stream,
)

pytestmark = pytest.mark.timeout(30)


__all__ = ["engine", "server"]  # fixtures


# Answers


async def test_a_stream_becomes_one_delta_per_event(server: FakeServer, engine: Watched) -> None:
    deltas = await collect(engine, request(temperature=0.5))
    assert [each.text for each in deltas] == ["Hello", " wörld", "", ""]
    assert [each.extra for each in deltas] == [""] * 4
    assert [each.finish_reason for each in deltas] == ["", "", "stop", ""]
    assert json.loads(deltas[-1].usage) == USAGE
    sent = server.requests[0]
    assert (sent["temperature"], sent["stream"], sent["stream_options"]) == (0.5, True, {"include_usage": True})
    assert server.paths == ["/v1/chat/completions"]


async def test_a_unary_answer_is_one_delta(server: FakeServer, engine: Watched) -> None:
    (delta,) = await collect(engine, request(stream=False))
    assert (delta.text, delta.extra, delta.finish_reason) == ("Hello world", "", "stop")
    assert json.loads(delta.usage) == USAGE
    assert server.requests[0]["stream"] is False
    assert "stream_options" not in server.requests[0]


@pytest.mark.parametrize("stream_options", [None, {"include_usage": False, "other": 1}])
async def test_usage_is_asked_for_and_the_rest_of_the_body_is_kept(
    server: FakeServer, engine: Watched, stream_options: Any
) -> None:
    raw = '{"model":"m1","messages":[{"role":"user","content":"\\u00fc"}],"seed":12345678901234567890,"top_p":0.10}'
    body = raw[:-1] + f',"stream_options":{json.dumps(stream_options)}}}'
    await collect(engine, TaskRequest("hub", "t", 1, "chat", "m1", body, stream=True))
    sent = server.requests[0]
    assert sent["stream_options"] == {**(stream_options or {}), "include_usage": True}
    assert sent["seed"] == 12345678901234567890
    assert sent["messages"] == [{"role": "user", "content": "ü"}]


async def test_completions_stream_and_unary(server: FakeServer, engine: Watched) -> None:
    server.handler = answering(event({"choices": [{"index": 0, "text": "ab", "finish_reason": None}]}), DONE)
    assert await collect(engine, request(kind="completion")) == [Delta("ab")]
    server.handler = saying(200, {"choices": [{"index": 0, "text": "ab", "finish_reason": "length", "logprobs": None}]})
    assert await collect(engine, request(kind="completion", stream=False)) == [Delta("ab", finish_reason="length")]
    assert set(server.paths) == {"/v1/completions"}


async def test_embeddings_are_extra(server: FakeServer, engine: Watched) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, -1.0]}]
    server.handler = saying(200, {"object": "list", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    (delta,) = await collect(engine, request(kind="embedding", stream=False))
    assert (delta.text, json.loads(delta.extra)) == ("", data)
    assert json.loads(delta.usage)["prompt_tokens"] == 3
    assert server.paths == ["/v1/embeddings"]
    assert "stream" not in server.requests[0]


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ([{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, "finish_reason": None}], ""),
        ([{"index": 0, "delta": {"content": "x"}, "logprobs": {"content": [{"token": "x"}]}}], "x"),
        ([{"index": 0, "delta": {"content": "x"}}, {"index": 1, "delta": {"content": "y"}}], "x"),
        ([{"index": 1, "delta": {"content": "y"}, "finish_reason": None}], ""),
        ([{"index": 0, "delta": {"reasoning_content": "hm", "content": None}}], ""),
        ([{"index": 0, "delta": {"refusal": "no"}, "finish_reason": None}], ""),
        ([{"index": 0, "delta": {"content": "x", "something_new": 0.5}, "finish_reason": None}], "x"),
        ([{"index": 0, "delta": {"content": "x"}, "stop_reason": "END", "finish_reason": None}], "x"),
    ],
)
async def test_what_plain_text_cannot_carry_is_passed_on(
    server: FakeServer, engine: Watched, choices: list[Any], text: str
) -> None:
    server.handler = answering(event({"choices": choices}), step(finish="stop"), DONE)
    first, last = await collect(engine, request())
    assert (first.text, json.loads(first.extra)) == (text, choices)
    assert last == Delta(finish_reason="stop")
    whole = [{**each, "message": each["delta"]} for each in choices]
    for each in whole:
        del each["delta"]
    server.handler = saying(200, {"choices": whole})
    (delta,) = await collect(engine, request(stream=False))
    assert (delta.text, json.loads(delta.extra)) == (text, whole)


async def test_null_and_empty_members_are_no_extra(server: FakeServer, engine: Watched) -> None:
    delta: dict[str, Any] = {
        "role": "assistant",
        "content": "x",
        "tool_calls": [],
        "reasoning_content": None,
        "odd": None,
    }
    choice = {"index": 0, "delta": delta, "logprobs": None, "stop_reason": None, "finish_reason": None, "new": None}
    server.handler = answering(event({"choices": [choice], "usage": None}), step(finish="stop"), DONE)
    assert await collect(engine, request()) == [Delta("x"), Delta(finish_reason="stop")]


CALLS = [
    [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}],
    [{"index": 0, "function": {"arguments": '{"x"'}}],
    [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
    [{"index": 0, "function": {"arguments": ": 1}"}}],
]


async def test_a_unary_answer_from_a_server_that_must_stream(server: FakeServer) -> None:
    async with engine_for(server.url, always_stream=True) as engine:
        (delta,) = await collect(engine, request(stream=False))
        assert (delta.text, delta.extra, delta.finish_reason) == ("Hello wörld", "", "stop")
        assert json.loads(delta.usage) == USAGE
        assert server.requests[-1]["stream"] is True

        server.handler = answering(
            step(role="assistant"),
            step("let me "),
            step("see", reasoning_content="hm"),
            *(step(tool_calls=each) for each in CALLS),
            step(finish="tool_calls"),
            DONE,
        )
        (delta,) = await collect(engine, request(stream=False))
        assert (delta.text, delta.finish_reason) == ("let me see", "tool_calls")
        (choice,) = json.loads(delta.extra)
        assert (choice["index"], choice["finish_reason"]) == (0, "tool_calls")
        assert choice["message"] == {
            "role": "assistant",
            "content": "let me see",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        }

        def part(index: int, text: str, finish: str | None = None) -> bytes:
            logprobs = {"tokens": [text], "token_logprobs": [-0.5]}
            return event({"choices": [{"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}]})

        server.handler = answering(part(0, "a"), part(1, "x"), part(1, "y", "stop"), part(0, "b", "length"), DONE)
        (delta,) = await collect(engine, request(stream=False, kind="completion", n=2))
        assert json.loads(delta.extra) == [
            {"index": 0, "text": "ab", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-0.5, -0.5]},
             "finish_reason": "length"},
            {"index": 1, "text": "xy", "logprobs": {"tokens": ["x", "y"], "token_logprobs": [-0.5, -0.5]},
             "finish_reason": "stop"},
        ]  # fmt: skip

        server.handler = answering(step("a"), event({"error": {"message": "oom"}}))
        with pytest.raises(EngineFailed, match="oom"):
            await collect(engine, request(stream=False))


async def test_several_streams_at_once_keep_apart(server: FakeServer, engine: Watched) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        user = server.requests[-1]["user"]
        return await stream(request, *(step(f"{user}.{each} ") for each in range(20)), step(finish="stop"), DONE)

    server.handler = echo
    answers = await asyncio.gather(*(collect(engine, request(user=f"u{each}")) for each in range(20)))
    for number, deltas in enumerate(answers):
        assert "".join(each.text for each in deltas) == "".join(f"u{number}.{each} " for each in range(20))


async def test_a_trace_goes_on_to_the_server(server: FakeServer, engine: Watched) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await collect(engine, request(trace=trace))
    assert server.headers[-1]["traceparent"] == trace


async def test_a_length_is_set_only_where_the_client_set_none(server: FakeServer) -> None:
    async with engine_for(server.url, default_max_tokens=7) as engine:
        for body in ({}, {"max_tokens": None}, {"max_tokens": 3}, {"max_completion_tokens": 4}):
            await collect(engine, request(**body))
    sent = [(each.get("max_tokens"), each.get("max_completion_tokens")) for each in server.requests]
    assert sent == [(7, None), (7, None), (3, None), (None, 4)]


# Faults


@pytest.mark.parametrize(
    ("status", "body", "message", "param", "code"),
    [
        (400, {"error": {"message": "too long", "param": "messages", "code": "context_length_exceeded"}}, "too long",
         "messages", "context_length_exceeded"),
        (400, {"error": {"message": "too long", "code": 400, "type": "exceed_context_size_error"}}, "too long", "",
         "context_length_exceeded"),
        (404, {"object": "error", "message": "no such model", "code": 404, "type": "NotFoundError", "param": None},
         "no such model", "", "NotFoundError"),
        (422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "field required"}, {"msg": "odd"}]},
         "messages[0].role: field required; odd", "messages[0].role", ""),
        (422, {"detail": [{"loc": ["body"]}]}, '[{"loc":["body"]}]', "", ""),
        (413, "<html>too large</html>", "<html>too large</html>", "", ""),
        (400, {"error": "bad thing"}, "bad thing", "", ""),
        (400, "", "(an empty body)", "", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("streaming", [True, False])
async def test_4xx_is_the_clients_fault(
    server: FakeServer, engine: Watched, streaming: bool, status: int, body: Any, message: str, param: str, code: str
) -> None:
    server.handler = saying(status, body)
    with pytest.raises(InvalidRequest) as caught:
        await collect(engine, request(streaming))
    error = caught.value
    assert (str(error), error.status, error.param, error.detail_code) == (message, status, param, code)
    assert engine.status().state == "ready"


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 501, 502, 503])
async def test_what_the_client_cannot_help_is_the_engines_fault(
    server: FakeServer, engine: Watched, status: int
) -> None:
    server.handler = saying(status, {"error": {"message": "oh"}})
    with pytest.raises(EngineFailed, match=f"status {status}: oh") as caught:
        await collect(engine, request())
    assert caught.value.status == status


@pytest.mark.parametrize(("status", "kind"), [(400, InvalidRequest), (429, EngineFailed), (503, EngineFailed)])
async def test_what_a_refusal_says_besides_is_kept(
    server: FakeServer, engine: Watched, status: int, kind: type[TaskError]
) -> None:
    error = {"message": "oh", "type": "t", "param": None, "code": "c", "n_ctx": 5, "innererror": {"a": [1]}, "b": None}
    server.handler = saying(status, {"error": error, "beside": 1}, headers={"Retry-After": "7"})
    with pytest.raises(kind) as caught:
        await collect(engine, request())
    assert caught.value.members == {"type": "t", "n_ctx": 5, "innererror": {"a": [1]}}
    assert (caught.value.retry_after, caught.value.origin, caught.value.detail_code) == (7.0, "engine", "c")
    assert from_wire(to_wire(caught.value), phase="streaming").members == caught.value.members


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("1.5", 1.5, 1.5),
        ("-3", 0, 0),
        ("nan", 0, 0),
        ("inf", 0, 0),
        ("soon", 0, 0),
        (lambda: formatdate(time.time() + 100, usegmt=True), 50, 101),
        (lambda: "Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
async def test_retry_after_is_seconds_or_a_date(
    server: FakeServer, engine: Watched, header: str | Callable[[], str], least: float, most: float
) -> None:
    text = header if isinstance(header, str) else header()
    server.handler = saying(503, {"error": "oh"}, headers={"Retry-After": text})
    with pytest.raises(EngineFailed) as caught:
        await collect(engine, request())
    assert least <= caught.value.retry_after <= most


async def test_what_an_error_event_says_besides_is_kept(server: FakeServer, engine: Watched) -> None:
    server.handler = answering(step("a"), event({"error": {"message": "oom", "code": 500, "free": 3}}))
    with pytest.raises(EngineFailed, match="oom") as caught:
        await collect(engine, request())
    assert caught.value.members == {"free": 3}


BAD_STREAMS: dict[str, tuple[tuple[bytes, ...], int, str]] = {
    "no JSON": ((step("a"), event(b"{oops")), 1, "no OpenAI JSON"),
    "error event": ((step("a"), event({"error": {"message": "out of memory", "code": 500}})), 1, "out of memory"),
    "error event with choices": ((step("a"), event({"choices": [], "error": {"message": "oom"}})), 1, "oom"),
    "ends early": ((step("a"), step("b")), 2, "before the answer was complete"),
    "says nothing": ((), 0, "before the answer was complete"),
    "no token": ((step(role="assistant"), step(finish="stop"), DONE), 0, "without a single token"),
    "only done": ((DONE,), 0, "without a single token"),
    "not an object": ((event([1]),), 0, "no OpenAI JSON"),
    "choices of another kind": ((event({"choices": 5}),), 0, "no OpenAI JSON"),
}


@pytest.mark.parametrize("case", BAD_STREAMS)
async def test_a_broken_stream_is_the_engines_fault_after_what_it_gave(
    server: FakeServer, engine: Watched, case: str
) -> None:
    pieces, good, message = BAD_STREAMS[case]
    server.handler = answering(b"".join(pieces))
    deltas: list[Delta] = []

    async def read() -> None:
        async for delta in engine.run(request()):
            assert isinstance(delta, Delta)
            deltas.append(delta)

    with pytest.raises(EngineFailed, match=message):
        await read()
    assert len(deltas) == good


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html>login</html>", "no OpenAI JSON.*<html>login"),
        ('{"choices": [', "no OpenAI JSON"),
        ("[]", "no OpenAI JSON"),
        ({"choices": []}, "without a single token"),
        ({"choices": [{"index": 0, "message": {"content": ""}, "finish_reason": "stop"}]}, "without a single token"),
        ({"error": {"message": "overloaded", "code": "busy"}}, "overloaded"),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_200_that_is_no_answer(
    server: FakeServer, engine: Watched, streaming: bool, body: Any, message: str
) -> None:
    server.handler = saying(200, body)
    with pytest.raises(EngineFailed, match=message):
        await collect(engine, request(streaming))


async def test_no_embedding_is_no_answer(server: FakeServer, engine: Watched) -> None:
    server.handler = saying(200, {"data": []})
    with pytest.raises(EngineFailed, match="without an embedding"):
        await collect(engine, request(stream=False, kind="embedding"))


async def test_an_answer_of_hidden_tokens_is_one(server: FakeServer, engine: Watched) -> None:
    """A stop sequence met at once: nothing to show, but the model did answer."""
    server.handler = answering(step(finish="stop"), event({"choices": [], "usage": {"completion_tokens": 1}}), DONE)
    deltas = await collect(engine, request(stop=["x"]))
    assert [each.finish_reason for each in deltas] == ["stop", ""]


async def test_a_stream_without_done_is_complete_when_it_gave_its_reason(server: FakeServer, engine: Watched) -> None:
    server.handler = answering(step("a"), step(finish="stop"))
    assert await collect(engine, request()) == [Delta("a"), Delta(finish_reason="stop")]


@pytest.mark.parametrize("body", ["", "[]", "no", '"x"'])
async def test_a_body_that_is_no_object_is_refused_here(server: FakeServer, engine: Watched, body: str) -> None:
    with pytest.raises(InvalidRequest, match="no JSON object"):
        await collect(engine, TaskRequest("hub", "t", 1, "chat", "m1", body, stream=True))
    assert not server.requests


async def test_a_stream_cut_at_any_byte_ends_and_never_lies() -> None:
    """The whole HTTP response, cut after every one of its bytes: a prefix of the answer and then `EngineFailed`, or,
    always once its finish reason was read, the answer."""
    body = b"".join(HELLO)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in HELLO) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = head + chunks
    assert len(body) < len(chunks)
    cut = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            asked = await reader.readuntil(b"\r\n\r\n")
            if asked.startswith(b"GET"):
                writer.write(
                    b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\nConnection: close\r\n\r\n{"data":[{"id":"m1"}]}\n'
                )
            else:
                writer.write(response[:cut])
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                writer.write_eof()
                await reader.read()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    whole = ["Hello", " wörld"]
    finished = response.index(HELLO[3]) + len(HELLO[3])
    complete = 0
    async with listener, engine_for(f"http://127.0.0.1:{port}/v1", refresh_interval=0) as engine:
        for cut in range(len(response) + 1):
            texts: list[str] = []
            try:
                async for delta in engine.run(request()):
                    if isinstance(delta, Delta) and delta.text:
                        texts.append(delta.text)
                assert texts == whole
                complete += 1
            except EngineFailed:
                assert texts == whole[: len(texts)]
            assert (complete > 0) == (cut >= finished)
    assert complete == len(response) + 1 - finished


async def test_an_endless_event_is_cut_off(server: FakeServer, engine: Watched) -> None:
    server.handler = answering(step("a"), b"data: ", *[b"x" * 1_000_000] * 9)
    with pytest.raises(EngineFailed, match="unreadable stream"):
        await collect(engine, request())


# Cancelling


@pytest.mark.parametrize("streaming", [True, False])
async def test_cancelling_before_the_answer_closes_the_connection(
    server: FakeServer, engine: Watched, streaming: bool
) -> None:
    server.handler = server.wait_for_ever
    running = asyncio.create_task(collect(engine, request(streaming)))
    await server.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await server.gone.wait()
    assert engine.status().state == "ready"


async def test_cancelling_in_the_stream_closes_the_connection(server: FakeServer, engine: Watched) -> None:
    async def begin(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(step("a"))
        return await server.wait_for_ever(request)

    server.handler = begin
    first = asyncio.Event()

    async def read() -> None:
        async for _ in engine.run(request()):
            first.set()

    running = asyncio.create_task(read())
    await first.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await server.gone.wait()


async def test_leaving_the_generator_closes_the_connection(server: FakeServer, engine: Watched) -> None:
    async def begin(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(step("a"))
        return await server.wait_for_ever(request)

    server.handler = begin
    deltas = engine.run(request())
    assert await anext(deltas) == Delta("a")
    await deltas.aclose()
    await server.gone.wait()


# The server's coming and going


async def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    server = FakeServer()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server.port = probe.getsockname()[1]
    async with engine_for(server.url) as engine:
        assert engine.status().state == "starting"
        assert "cannot be reached" in engine.status().detail
        with pytest.raises(EngineFailed, match="cannot be reached"):
            await collect(engine, request())
        await server.up()
        try:
            await engine.until("ready")
            assert engine.status().models == ("m1", "m2")
            assert len(await collect(engine, request())) == 4
        finally:
            await server.down()


async def test_a_server_that_never_comes_is_failed_and_says_why() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    async with engine_for(url, startup_timeout=0.1) as engine:
        await engine.until("failed", ())
        assert url in engine.status().detail


async def test_a_server_that_dies_is_failed_and_comes_back_by_itself(server: FakeServer, engine: Watched) -> None:
    server.handler = server.wait_for_ever
    running = asyncio.create_task(collect(engine, request()))
    await server.begun.wait()
    await server.down()
    with pytest.raises(EngineFailed):
        await running
    assert engine.status().state == "failed"
    assert [(each.model, each.state) for each in engine.status().offers] == [("m1", "crashed"), ("m2", "crashed")]
    with pytest.raises(EngineFailed, match="cannot be reached") as caught:
        await collect(engine, request())
    assert isinstance(caught.value.__cause__, OSError)
    server.handler = server.say_hello
    await server.up()
    await engine.until("ready")
    assert len(await collect(engine, request())) == 4


async def test_an_idle_servers_death_and_new_models_are_noticed(server: FakeServer) -> None:
    async with engine_for(server.url, refresh_interval=0.05) as engine:
        server.models["data"].append({"id": "m3"})
        models = ("m1", "m2", "m3")
        await engine.until("ready", models)
        await server.down()
        await engine.until("failed", models)
        await server.up()
        await engine.until("ready", models)


async def test_a_kept_connection_closed_by_the_server_costs_one_counted_try() -> None:
    """A server that closes each connection after an answer without announcing it, as llama.cpp does after streams."""
    connections = 0
    body = b'{"data":[{"id":"m1"}],"choices":[{"index":0,"message":{"content":"a"}}]}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.closing(writer):
            asked = await reader.readuntil(b"\r\n\r\n")
            if asked.startswith(b"POST"):
                await reader.readuntil(b"}")
            writer.write(answer)
            await writer.drain()
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")  # closed only while the next request is being written

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, engine_for(f"http://127.0.0.1:{port}/v1", refresh_interval=0) as engine:
        for _ in range(5):
            assert [each for each in await collect(engine, request(stream=False)) if not each.attempts_used] == [
                Delta("a")
            ]
        assert engine.status().state == "ready"
    assert connections > 2


async def test_an_answer_that_is_no_http_tells_no_address() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nX-Secret: " + b"q" * 70_000 + b"\r\n\r\n")
            await writer.drain()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, engine_for(f"http://127.0.0.1:{port}/v1", models=["m1"], refresh_interval=0) as engine:
        with pytest.raises(EngineFailed) as failed:
            await collect(engine, request())
    assert str(failed.value) == "the server closed the connection without an answer: its answer is no HTTP"


# Settings


async def test_the_key_is_sent(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "s2")
    for options, key in (({"api_key": "s1"}, "s1"), ({"api_key_env": "SOME_KEY"}, "s2")):
        async with engine_for(server.url, **options) as engine:
            await collect(engine, request())
        assert {each["Authorization"] for each in server.headers} == {f"Bearer {key}"}
        server.headers.clear()


async def test_a_list_of_models_restricts(server: FakeServer) -> None:
    async with engine_for(server.url, models=["m2", "m9"]) as engine:
        assert engine.status().models == ("m2",)
        assert "m9" in engine.status().detail
        with pytest.raises(InvalidRequest, match="'m1' is not offered"):
            await collect(engine, request(model="m1"))


async def test_a_mapping_of_models_renames(server: FakeServer) -> None:
    async with engine_for(server.url, models={"public": "m2"}) as engine:
        assert engine.status().models == ("public",)
        await collect(engine, request(model="public"))
    assert server.requests[0]["model"] == "m2"


async def test_the_model_of_the_task_is_asked_for_whatever_the_body_names(server: FakeServer) -> None:
    async with engine_for(server.url, models={"public": "m2"}) as engine:
        await collect(engine, request(model="public", models=["a", "public"], n=1))
        other = msgspec.structs.replace(request(), model="public")
        await collect(engine, other)
    assert [each["model"] for each in server.requests] == ["m2", "m2"]
    assert not any("models" in each for each in server.requests)


async def test_offers_tell_the_context_where_the_server_does_and_nothing_else(server: FakeServer) -> None:
    server.models["data"] = [{"id": "m1", "max_model_len": 4096}, {"id": "m2"}, {"id": "m3", "max_model_len": "long"}]
    async with engine_for(server.url) as engine:
        assert engine.status().offers == (Offer("m1", context=4096), Offer("m2"), Offer("m3"))
        assert not engine.resumable(request())
    async with engine_for(server.url, models={"public": "m1"}) as engine:
        assert engine.status().offers == (Offer("public", context=4096),)


async def test_a_server_that_lists_very_many_models_offers_as_many_as_may_be(server: FakeServer) -> None:
    server.models["data"] = [{"id": f"m{each}"} for each in range(MAX_OFFERS + 5)]
    async with engine_for(server.url) as engine:
        assert len(engine.status().offers) == MAX_OFFERS


async def test_models_that_are_not_there_are_a_failure_that_names_those_that_are(server: FakeServer) -> None:
    async with engine_for(server.url, models=["m9"], refresh_interval=0) as engine:
        assert engine.status().state == "failed"
        assert "m1, m2" in engine.status().detail
        server.models["data"] = [{"id": "m9"}]
        await engine.until("ready", ("m9",))


async def test_a_server_without_a_list_of_models_needs_their_names(server: FakeServer) -> None:
    server.models_status = 404
    with pytest.raises(ConfigError, match=r"lack /v1.*openai\.models"):
        async with engine_for(server.url):
            pass
    async with engine_for(server.url, models=["m7"]) as engine:
        assert engine.status().models == ("m7",)
        await collect(engine, request(model="m7"))


async def test_a_wrong_key_is_said_at_start(server: FakeServer) -> None:
    server.models_status = 401
    with pytest.raises(ConfigError, match="api_key"):
        async with engine_for(server.url, api_key="bad"):
            pass


async def test_a_missing_variable_is_said_at_start(server: FakeServer) -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE"):
        async with engine_for(server.url, api_key_env="NO_SUCH_VARIABLE"):
            pass


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "localhost:8000"},
        {"base_url": "http://"},
        {"api_key": "a", "api_key_env": "B"},
        {"kinds": []},
        {"kinds": ["chat", "song"]},
        {"base_ur": "http://x"},
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        OpenAIEngine.Config(**options)


def test_capabilities_are_the_configured_kinds() -> None:
    assert OpenAIEngine(OpenAIEngine.Config(kinds=["embedding"])).capabilities == ("embedding",)
    assert OpenAIEngine(OpenAIEngine.Config()).capabilities == ("chat", "completion", "embedding")


async def test_close_is_idempotent_and_ends_what_runs(server: FakeServer) -> None:
    engine = OpenAIEngine(OpenAIEngine.Config(base_url=server.url))
    await engine.close()
    await engine.start(lambda: None)
    server.handler = server.wait_for_ever
    running = asyncio.create_task(collect(engine, request()))
    await server.begun.wait()
    await engine.close()
    await engine.close()
    with pytest.raises(EngineFailed):
        await running
    await server.gone.wait()
    with pytest.raises(EngineFailed, match="not running"):
        await collect(engine, request())
