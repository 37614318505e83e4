"""The engine ``openai`` keeps what has arrived, and asks no more often than it says: servers that break off, fall
silent, leave things out or write them in their own way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest
from anywire_engine_openai import upstream
from anywire_engine_openai.listing import read_models

from .fake_openai_server import (
    DONE,
    USAGE,
    FakeServer,
    Handler,
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
)

pytestmark = pytest.mark.timeout(30)


__all__ = ["engine", "server"]  # fixtures


def breaking(*pieces: bytes) -> Handler:
    """Sends these events, and then cuts the connection in the middle of the response."""

    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        for piece in pieces:
            await response.write(piece)
        assert asked.transport is not None
        asked.transport.close()
        return response

    return handler


# A whole answer stays whole


TAILS: dict[str, Handler] = {
    "the connection breaks": breaking(step("whole"), step(finish="stop")),
    "an error event": answering(step("whole"), step(finish="stop"), event({"error": {"message": "oom"}}), DONE),
    "a refusal": answering(step("whole"), step(finish="stop"), event({"error": {"message": "no", "code": 400}}), DONE),
    "garbage": answering(step("whole"), step(finish="stop"), event(b"{oops")),
    "an endless event": answering(step("whole"), step(finish="stop"), b"data: ", *[b"x" * 1_000_000] * 9),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_goes_wrong_after_the_finish_reason_takes_nothing_away(
    server: FakeServer, tail: str, streamed: bool
) -> None:
    server.handler = TAILS[tail]
    async with engine_for(server.url, refresh_interval=0, always_stream=True) as engine:
        deltas = await collect(engine, request(streamed))
        assert ("".join(each.text for each in deltas), deltas[-1].finish_reason) == ("whole", "stop")


async def test_what_has_arrived_is_read_although_the_connection_broke_meanwhile(
    server: FakeServer, engine: Watched
) -> None:
    go, gone = asyncio.Event(), asyncio.Event()

    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        await response.write(step("the "))
        await go.wait()
        await response.write(step("whole") + step(finish="stop"))
        assert asked.transport is not None
        asked.transport.close()
        gone.set()
        return response

    server.handler = handler
    running = engine.run(request())
    deltas = [await anext(running)]
    go.set()
    await gone.wait()
    for _ in range(100):  # the turns of the loop in which the client's end notices, while nobody reads there
        await asyncio.sleep(0)
    deltas += [each async for each in running]
    assert "".join(each.text for each in deltas if isinstance(each, Delta)) == "the whole"


async def test_silence_after_the_finish_reason_takes_nothing_away(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        await response.write(step("whole") + step(finish="stop"))
        return await server.wait_for_ever(asked)

    server.handler = handler
    monkeypatch.setattr(upstream, "LAST_WORDS", 0.05)
    async with engine_for(server.url, refresh_interval=0, next_token_timeout=600) as engine:
        assert await collect(engine, request()) == [Delta("whole"), Delta(finish_reason="stop")]
        await server.gone.wait()


async def test_of_several_choices_all_must_have_ended(server: FakeServer, engine: Watched) -> None:
    def part(index: int, finish: str | None = None) -> bytes:
        return event({"choices": [{"index": index, "text": "x", "finish_reason": finish}]})

    server.handler = breaking(part(0, "stop"), part(1))
    for body in ({"n": 2}, {"prompt": ["a", "b"]}, {"prompt": [[1], [2, 3]]}):
        with pytest.raises(EngineFailed, match="broke before the answer was complete"):
            await collect(engine, request(kind="completion", **body))
    server.handler = breaking(part(1, "stop"), part(0, "length"))
    deltas = await collect(engine, request(kind="completion", n=2))
    assert [each.text for each in deltas] == ["", "x"]
    server.handler = breaking(part(0, "stop"))
    assert len(await collect(engine, request(kind="completion", prompt=[1, 2, 3]))) == 1  # the tokens of one prompt


async def test_usages_of_several_choices_are_added(server: FakeServer, engine: Watched) -> None:
    def end(index: int, tokens: int) -> bytes:
        choice = {"index": index, "text": "x", "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1, "details": {"a": 1}}
        return event({"choices": [choice], "usage": usage})

    server.handler = answering(end(1, 2), end(0, 3), DONE)
    deltas = await collect(engine, request(kind="completion", n=2))
    assert json.loads(deltas[-1].usage) == {
        "prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7, "details": {"a": 1}
    }  # fmt: skip
    server.handler = answering(end(1, 2), end(0, 3), event({"choices": [], "usage": USAGE}), DONE)
    deltas = await collect(engine, request(kind="completion", n=2))
    assert json.loads(deltas[-1].usage) == USAGE


@pytest.mark.parametrize("status", [200, 400])
async def test_a_body_that_breaks_off_after_it_was_whole_is_taken(
    server: FakeServer, engine: Watched, status: int
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]} if status == 200 else {"error": {"message": "too long"}}).encode()

    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        await response.prepare(asked)
        await response.write(body)
        assert asked.transport is not None
        asked.transport.close()
        return response

    server.handler = handler
    if status == 200:
        assert await collect(engine, request(stream=False)) == [Delta("whole", finish_reason="stop")]
        body = body[:-1]
        with pytest.raises(EngineFailed, match="broke before the answer was complete"):
            await collect(engine, request(stream=False))
    else:
        with pytest.raises(InvalidRequest, match="too long"):
            await collect(engine, request(stream=False))


# Empty answers


@pytest.mark.parametrize("content", [{"content": ""}, {"content": None}, {}])
@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}])
@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_empty_answer_with_a_reason_is_an_answer(
    server: FakeServer, engine: Watched, content: dict[str, Any], usage: Any, reason: str, streamed: bool
) -> None:
    if streamed:
        server.handler = answering(step(role="assistant"), step(finish=reason, **content), DONE)
    else:
        choice = {"index": 0, "message": {"role": "assistant", **content}, "finish_reason": reason}
        server.handler = saying(200, {"choices": [choice], "usage": usage})
    deltas = await collect(engine, request(streamed))
    assert ("".join(each.text for each in deltas), deltas[-1].finish_reason) == ("", reason)


async def test_nothing_comes_of_an_answer_that_turns_out_to_be_none(server: FakeServer, engine: Watched) -> None:
    server.handler = answering(step(finish="stop"), DONE)
    with pytest.raises(EngineFailed, match="without a single token"):
        await anext(engine.run(request()))


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_events_that_are_null_are_passed_over(server: FakeServer, engine: Watched, kind: Any) -> None:
    server.handler = answering(event(b"null"), step("a"), event(b" null "), event(b""), step(finish="stop"), DONE)
    assert await collect(engine, request(kind=kind)) == [Delta("a"), Delta(finish_reason="stop")]


# What is no character


HALVES = {
    "half in two events": (event(rb'{"choices":[{"index":0,"delta":{"content":"x \ud83e"}}]}'),
                           event(rb'{"choices":[{"index":0,"delta":{"content":"\udde0 y"}}]}')),
    "in a member beyond text": (
        event(rb'{"choices":[{"index":0,"delta":{"content":"x \ud83e","new":"\ud83e"}}]}'), step("\ufffd y")),
    "bytes": (event(b'{"choices":[{"index":0,"delta":{"content":"x \xff"}}]}'), step("\ufffd y")),
}  # fmt: skip


@pytest.mark.parametrize("case", HALVES)
async def test_half_a_character_costs_itself_and_nothing_else(server: FakeServer, engine: Watched, case: str) -> None:
    server.handler = answering(step("good "), *HALVES[case], step(finish="stop"), DONE)
    deltas = await collect(engine, request())
    assert "".join(each.text for each in deltas) == "good x \ufffd\ufffd y"
    assert all("\\ud" not in each.extra for each in deltas)


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_is_no_json_within_json_is_read(server: FakeServer, engine: Watched, streamed: bool) -> None:
    """Raw control characters, and numbers that Python and JavaScript write."""
    member = "delta" if streamed else "message"
    choice = (
        b'{"index":0,"%b":{"content":"NaN \\" a\x01b\tc"},"logprobs":{"content":[-Infinity, NaN]}}' % member.encode()
    )
    body = b'{"choices":[%b]}' % choice
    if streamed:
        server.handler = answering(event(body), step(finish="stop"), DONE)
    else:
        server.handler = saying(200, body.decode())
    delta = (await collect(engine, request(streamed)))[0]
    assert delta.text == 'NaN " a\x01b\tc'
    (told,) = json.loads(delta.extra)
    assert told["logprobs"]["content"] == [None, None]


async def test_pairs_and_escaped_backslashes_are_no_halves(server: FakeServer, engine: Watched) -> None:
    text = r'"\ud83e\udde0 \\ud83e \ud83e \n"'
    server.handler = saying(200, '{"choices":[{"index":0,"message":{"content":' + text + '},"finish_reason":"stop"}]}')
    (delta,) = await collect(engine, request(stream=False))
    assert delta.text == "\U0001f9e0 \\ud83e \ufffd \n"


# Tool calls and other lists that come in pieces


def call(arguments: str, name: str = "", **members: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {**members, "function": function}


TWO_CALLS: dict[str, list[dict[str, Any]]] = {
    "one index": [call('{"a":1}', "f", index=0, id="c1", type="function"),
                  call('{"b":2}', "g", index=0, id="c2", type="function")],
    "no index": [call('{"a"', "f", id="c1", type="function"), call(":1}"),
                 call('{"b"', "g", id="c2", type="function"), call(":2}")],
    "the id in each piece": [call('{"a"', "f", id="c1", index=0, type="function"), call(":1}", id="c1", index=0),
                             call('{"b"', "g", id="c2", index=1, type="function"), call(":2}", id="c2", index=1)],
    "pieces in turns": [call('{"a"', "f", id="c1", index=0, type="function"),
                        call('{"b"', "g", id="c2", index=1, type="function"),
                        call(":1}", index=0), call(":2}", index=1)],
    "empty ids and names": [call('{"a"', "f", id="c1", index=0, type="function"),
                            {"id": "", "index": 0, "type": "", "function": {"name": "", "arguments": ":1}"}},
                            call('{"b"', "g", id="c2", index=1, type="function"), call(":2}", id=None, index=1)],
    "another id for each piece": [call('{"a"', "f", id="c1", index=0, type="function"), call(":1}", id="x", index=0),
                                  call('{"b":2}', "g", id="c2", index=1, type="function")],
}  # fmt: skip


@pytest.mark.parametrize("case", TWO_CALLS)
async def test_two_calls_stay_two(server: FakeServer, case: str) -> None:
    pieces = [step(tool_calls=[each]) for each in TWO_CALLS[case]]
    server.handler = answering(*pieces, step(finish="tool_calls"), DONE)
    async with engine_for(server.url, refresh_interval=0, always_stream=True) as engine:
        (delta,) = await collect(engine, request(stream=False))
    (choice,) = json.loads(delta.extra)
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": '{"b":2}'}},
    ]


async def test_details_and_parts_are_joined_by_index_and_type(server: FakeServer) -> None:
    thought = {"type": "reasoning.text", "index": 0}
    server.handler = answering(
        step(reasoning_details=[thought | {"text": "hm", "id": ""}]),
        step(reasoning_details=[thought | {"text": "m"}]),
        step(reasoning_details=[{"type": "reasoning.encrypted", "index": 0, "data": "xyz"}]),
        event({"choices": [{"index": 0, "delta": {"content": [{"type": "thinking", "thinking": [{"text": "a"}]}]}}]}),
        step("said"),
        step(finish="stop"),
        DONE,
    )
    async with engine_for(server.url, refresh_interval=0, always_stream=True) as engine:
        (delta,) = await collect(engine, request(stream=False))
    message = json.loads(delta.extra)[0]["message"]
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "hmm", "id": ""},
        {"type": "reasoning.encrypted", "index": 0, "data": "xyz"},
    ]
    assert message["content"] == [{"type": "thinking", "thinking": [{"text": "a"}]}, {"type": "text", "text": "said"}]


# Silence


@pytest.mark.parametrize(("begun", "phase"), [(False, "maybe_sent"), (True, "streaming")])
async def test_a_silent_server_is_left(server: FakeServer, begun: bool, phase: str) -> None:
    async def handler(asked: web.Request) -> web.StreamResponse:
        if begun:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(asked)
            await response.write(step("a"))
        return await server.wait_for_ever(asked)

    server.handler = handler
    limits = {"first_token_timeout": 0.0 if begun else 0.05, "next_token_timeout": 0.05 if begun else 0.0}
    async with engine_for(server.url, refresh_interval=0, **limits) as engine:
        with pytest.raises(EngineFailed, match=r"the server said nothing for 0\.05 s") as caught:
            await collect(engine, request())
        assert caught.value.phase == phase
        await server.gone.wait()


async def test_a_reader_that_takes_its_time_is_no_silence_of_the_server(server: FakeServer) -> None:
    server.handler = answering(step("a"), step("b"), step(finish="stop"), DONE)
    async with engine_for(server.url, refresh_interval=0, next_token_timeout=0.01) as engine:
        texts = []
        async for delta in engine.run(request()):
            assert isinstance(delta, Delta)
            texts.append(delta.text)
            await asyncio.sleep(0.03)
        assert texts == ["a", "b", ""]


# How often a request is sent


@contextlib.asynccontextmanager
async def poisoned(answers: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers as many requests on kept connections, and closes on every later one without a byte."""
    asked: list[bytes] = []
    listing = b'{"data":[{"id":"m1"}],"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(listing),
        listing,
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    size = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
                    asked.append(await reader.readexactly(size))
                    if len(asked) > answers:
                        return
                writer.write(answer)
                await writer.drain()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", asked


@pytest.mark.parametrize(("attempts_left", "tries"), [(0, 2), (3, 2), (1, 1)])
async def test_a_request_that_a_server_breaks_down_over_is_sent_twice_at_most(attempts_left: int, tries: int) -> None:
    async with poisoned(8) as (url, asked), engine_for(url, refresh_interval=0) as engine:
        await asyncio.gather(*(collect(engine, request(stream=False)) for _ in range(8)))
        task = msgspec.structs.replace(request(stream=False), attempts_left=attempts_left)
        told: list[Delta] = []

        async def read() -> None:
            async for delta in engine.run(task):
                assert isinstance(delta, Delta)
                told.append(delta)

        with pytest.raises(EngineFailed, match="closed the connection without an answer"):
            await read()
        assert len(asked) == 8 + tries
        assert told == ([Delta(attempts_used=2)] if tries > 1 else [])


# What clients may know


@pytest.mark.parametrize("stop", ["refuse", "close", "500"])
async def test_no_error_tells_the_address(server: FakeServer, engine: Watched, stop: str) -> None:
    if stop == "refuse":
        await server.down()
    elif stop == "close":
        server.handler = breaking(step("a"))
    else:
        server.handler = saying(500, {"error": {"message": "oh"}})
    with pytest.raises(EngineFailed) as caught:
        await collect(engine, request())
    assert "127.0.0.1" not in str(caught.value)
    assert str(server.port) not in str(caught.value)


@pytest.mark.parametrize("said", [
    "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
    "This model does not support image input",
    "audio input is not supported",
])  # fmt: skip
async def test_what_a_model_cannot_take_is_the_requests_fault_whatever_the_status(
    server: FakeServer, engine: Watched, said: str
) -> None:
    server.handler = saying(500, {"error": {"message": said, "code": 500, "type": "server_error"}})
    with pytest.raises(InvalidRequest) as caught:
        await collect(engine, request())
    assert (caught.value.status, str(caught.value)) == (400, said)


async def test_the_numbers_of_a_context_that_is_too_short_are_kept(server: FakeServer, engine: Watched) -> None:
    numbers = {"type": "exceed_context_size_error", "n_prompt_tokens": 5031, "n_ctx": 512}
    server.handler = saying(400, {"error": {"code": 400, "message": "the request exceeds the context", **numbers}})
    with pytest.raises(InvalidRequest) as caught:
        await collect(engine, request())
    assert caught.value.detail_code == "context_length_exceeded"
    assert caught.value.members == numbers


@pytest.mark.parametrize("status", [200, 400, 413, 500])
@pytest.mark.parametrize(("kind", "said"), [
    ("exceed_context_size_error", "it does not fit"),
    ("context_length_exceeded", "it does not fit"),
])  # fmt: skip
async def test_a_context_that_is_too_short_is_told_by_its_type_whatever_the_status(
    server: FakeServer, engine: Watched, status: int, kind: str, said: str
) -> None:
    error = {"error": {"message": said, "type": kind}}
    server.handler = answering(event(error)) if status == 200 else saying(status, error)
    with pytest.raises(InvalidRequest) as caught:
        await collect(engine, request())
    assert caught.value.detail_code == "context_length_exceeded"
    assert caught.value.status == (status if status in (400, 413) else 400)


@pytest.mark.parametrize("said", [
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512. Given: 600",
    "prompt is too long: 600 tokens > 512 maximum",
    "Prompt length exceeds the maximum model length of 512",
])  # fmt: skip
async def test_a_context_that_is_too_short_is_told_in_other_words(
    server: FakeServer, engine: Watched, said: str
) -> None:
    server.handler = saying(422, {"error": said})
    with pytest.raises(InvalidRequest) as caught:
        await collect(engine, request())
    assert (caught.value.detail_code, caught.value.status) == ("context_length_exceeded", 422)


@pytest.mark.parametrize("code", [400, "422", 404])
async def test_an_error_event_tells_the_status_that_it_would_have_had(
    server: FakeServer, engine: Watched, code: Any
) -> None:
    server.handler = answering(event({"error": {"message": "no such thing", "code": code}}))
    with pytest.raises(InvalidRequest, match="no such thing") as refused:
        await collect(engine, request())
    assert refused.value.status == int(code)
    server.handler = answering(event({"error": {"message": "slow down", "code": 429}}))
    with pytest.raises(EngineFailed, match="slow down") as busy:
        await collect(engine, request())
    assert busy.value.status == 429


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("status", [301, 307, 308])
async def test_a_redirect_executes_nothing(server: FakeServer, engine: Watched, status: int, streamed: bool) -> None:
    server.handler = saying(status, {}, headers={"Location": server.url + "/chat/completions"})
    with pytest.raises(EngineFailed, match=f"status {status}, a redirect") as caught:
        await collect(engine, request(streamed))
    assert len(server.requests) == 1
    assert "127.0.0.1" not in str(caught.value)


async def test_any_success_is_one(server: FakeServer, engine: Watched) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "made"}, "finish_reason": "stop"}
    server.handler = saying(201, {"choices": [choice]})
    assert await collect(engine, request(stream=False)) == [Delta("made", finish_reason="stop")]


async def test_retry_after_may_be_milliseconds(server: FakeServer, engine: Watched) -> None:
    for given, told in (("7500", 7.5), ("soon", 3.0)):
        server.handler = saying(429, {"error": "oh"}, headers={"retry-after-ms": given, "Retry-After": "3"})
        with pytest.raises(EngineFailed) as caught:
            await collect(engine, request())
        assert caught.value.retry_after == told


async def test_trace_state_goes_on_to_the_server(server: FakeServer, engine: Watched) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await collect(engine, request(trace=f"{parent} congo=t61rcWkgMzE, rojo=1"))
    assert (server.headers[-1]["traceparent"], server.headers[-1]["tracestate"]) == (
        parent,
        "congo=t61rcWkgMzE, rojo=1",
    )


# What a listing tells


@pytest.mark.parametrize(("entry", "told"), [
    ({"id": "m", "owned_by": "vllm", "max_model_len": 4096}, (4096, (), {}, "vllm")),
    ({"id": "m", "context_length": 8192, "architecture": {"input_modalities": ["text", "image"]},
      "supported_parameters": ["tools"]}, (8192, (), {"vision": True, "audio": False, "tools": True}, "")),
    ({"id": "m", "type": "embeddings", "max_context_length": 512}, (512, ("embedding",), {}, "")),
    ({"id": "m", "type": "vlm", "loaded_context_length": 1024, "max_context_length": 9, "capabilities": ["tool_use"]},
     (1024, ("chat", "completion"), {"tools": True, "vision": True}, "")),
    ({"id": "m", "capabilities": {"vision": False, "function_calling": True, "odd": 1}},
     (0, (), {"vision": False, "tools": True}, "")),
    ({"id": "m", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}, "owned_by": 3}, (2048, (), {}, "")),
    ({"id": "m", "type": ["x"], "context_length": "8k", "meta": 1, "architecture": "x"}, (0, (), {}, "")),
])  # fmt: skip
def test_a_listing_is_read_whoever_wrote_it(entry: dict[str, Any], told: tuple[Any, ...]) -> None:
    (model,) = read_models(json.dumps({"data": [entry, {"no": "id"}, 5]}).encode())
    assert (model.context, model.kinds, model.features, model.owner) == told


def test_what_llama_cpp_tells_beside_its_listing_is_read() -> None:
    body = {"models": [{"model": "m", "capabilities": ["completion", "multimodal"]}], "data": [{"id": "m"}]}
    (model,) = read_models(json.dumps(body).encode())
    assert model.features == {"vision": True}


async def test_embeddings_are_offered_unless_the_server_says_otherwise(server: FakeServer) -> None:
    server.models = {"data": [{"id": "m1"}, {"id": "m2", "type": "embedding", "owned_by": "them"}]}
    async with engine_for(server.url, refresh_interval=0) as engine:
        assert engine.capabilities == ("chat", "completion", "embedding")
        first, second = engine.status().offers
        assert (first.kinds, second.kinds, second.owner) == ((), ("embedding",), "them")
