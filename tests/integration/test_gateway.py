"""The OpenAI gateway with the real pipeline behind it, used by the official client and by raw connections."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import openai
import pytest
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, ScriptedEngine, hangs, says, serving

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta
from anywire.errors import ConfigError, EngineFailed, InvalidRequest
from anywire.messages import TaskRequest
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig


async def collect(stream: openai.AsyncStream[Any], texts: list[str]) -> None:
    async for event in stream:
        texts.append(event.choices[0].delta.content or "")


USAGE = '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}'


async def test_official_client_gets_a_whole_answer() -> None:
    async with (
        serving(says("Hel", Delta("lo", finish_reason="stop", usage=USAGE))) as served,
        served.client() as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, seed=7, stop=["."])
        answer = raw.parse()
        assert answer.choices[0].message.content == "Hello"
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        assert answer.usage.prompt_tokens_details.cached_tokens == 1
        assert answer.id == f"chatcmpl-{raw.headers['x-anywire-task']}"
        assert (answer.object, answer.model) == ("chat.completion", "m")
        assert raw.headers["x-anywire-transport"] == "memory"
        assert raw.headers["x-anywire-agent"] == "agent-1"
        assert raw.headers["x-anywire-attempts"] == "1"
        spans = dict(each.split(";dur=") for each in raw.headers["x-anywire-stages"].split(", "))
        assert {"received-admitted", "admitted-selected", "last_chunk-delivered"} <= spans.keys()
        assert all(float(span) >= 0 for span in spans.values())


async def test_official_client_gets_a_stream() -> None:
    engine = says("Hel", "lo", Delta(" you", finish_reason="length", usage=USAGE))
    async with serving(engine) as served, served.client() as client:
        stream = await client.chat.completions.create(
            model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert stream.response.headers["cache-control"] == "no-cache"
        assert stream.response.headers["x-anywire-agent"] == "agent-1"
        events = [event async for event in stream]
        assert len({event.id for event in events}) == 1
        assert len({event.created for event in events}) == 1
        assert events[0].choices[0].delta.role == "assistant"
        assert [event.choices[0].delta.content for event in events[1:4]] == ["Hel", "lo", " you"]
        assert [event.choices[0].finish_reason for event in events[:-1]] == [None] * 4 + ["length"]
        assert events[-1].choices == []
        assert events[-1].usage is not None
        assert events[-1].usage.total_tokens == 5


async def test_synchronous_client_in_another_thread() -> None:
    def ask(url: str) -> tuple[str | None, str]:
        with openai.OpenAI(base_url=f"{url}/api/v1", api_key="none", max_retries=0, timeout=TIMEOUT) as client:
            whole = client.chat.completions.create(model="synthetic", messages=MESSAGES)
            events = client.chat.completions.create(model="synthetic", messages=MESSAGES, stream=True)
            return whole.choices[0].message.content, "".join(
                event.choices[0].delta.content or "" for event in events if event.choices
            )

    async with serving(SyntheticEngine(SyntheticConfig())) as served:
        whole, streamed = await asyncio.to_thread(ask, served.url)
        assert whole
        assert whole == streamed


async def test_completions_and_embeddings() -> None:
    async with serving(SyntheticEngine(SyntheticConfig())) as served, served.client() as client:
        whole = await client.completions.create(model="synthetic", prompt="once", max_tokens=5)
        assert whole.object == "text_completion"
        assert whole.choices[0].finish_reason == "length"
        events = await client.completions.create(model="synthetic", prompt="once", max_tokens=5, stream=True)
        assert "".join([event.choices[0].text async for event in events]) == whole.choices[0].text
        vectors = await client.embeddings.create(model="synthetic", input=["a", "b"])
        assert [each.index for each in vectors.data] == [0, 1]
        assert len(vectors.data[0].embedding) == 64
        assert vectors.usage.total_tokens == 2


TOOL_DELTAS = [
    '[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"c1","type":"function",'
    '"function":{"name":"f","arguments":""}}]},"logprobs":null,"finish_reason":null}]',
    '[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":1}"}}]},"finish_reason":null}]',
    '[{"index":0,"delta":{},"finish_reason":"tool_calls"}]',
]


async def test_tool_calls_stream_as_the_engine_gave_them() -> None:
    engine = says(*(Delta("", extra) for extra in TOOL_DELTAS), Delta("", "", "tool_calls"))
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    async with serving(engine) as served, served.client() as client:
        async with client.chat.completions.stream(model="m", messages=MESSAGES, tools=[tool]) as stream:
            final = await stream.get_final_completion()
        choice = final.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.role == "assistant"
        assert choice.message.tool_calls is not None
        assert choice.message.tool_calls[0].function.arguments == '{"a":1}'
        sent = json.loads(engine.tasks[0].body)
        assert sent["tools"][0]["function"]["name"] == "f"


async def test_tool_calls_log_probabilities_and_choices_of_a_whole_answer() -> None:
    extra = (
        '[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",'
        '"function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"},'
        '{"index":1,"message":{"role":"assistant","content":"b"},"logprobs":{"content":[{"token":"b","logprob":-0.25,'
        '"bytes":[98],"top_logprobs":[]}],"refusal":null},"finish_reason":"stop"}]'
    )
    async with serving(says(Delta("", extra, "tool_calls"))) as served, served.client() as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES, n=2, logprobs=True)
        first, second = answer.choices
        assert first.message.tool_calls is not None
        assert first.message.tool_calls[0].id == "c1"
        assert second.logprobs is not None
        assert second.logprobs.content is not None
        assert second.logprobs.content[0].logprob == -0.25


async def test_each_choice_of_a_stream_has_its_role_once() -> None:
    def part(index: int, text: str, finish: str | None = None, role: str | None = None) -> Delta:
        delta = {"content": text} if role is None else {"role": role, "content": text}
        return Delta("", json.dumps([{"index": index, "delta": delta, "finish_reason": finish}], indent=1))

    engine = says(
        "a", part(1, "x", role="assistant"), part(0, "b", role="assistant"), part(1, "y", "stop"), part(0, "", "stop")
    )
    async with serving(engine) as served, served.client() as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, n=2, stream=True)
        parts = [(c.index, c.delta.role, c.delta.content, c.finish_reason) async for e in stream for c in e.choices]
        assert parts == [
            (0, "assistant", "", None),
            (0, None, "a", None),
            (1, "assistant", "x", None),
            (0, None, "b", None),
            (1, None, "y", "stop"),
            (0, None, "", "stop"),
        ]


async def test_the_engine_gets_the_client_s_text_untouched() -> None:
    text = (
        '{ "messages":[{"role":"user","content":[{"type":"text","text":"a\\u00e9 \\ud83d\\ude00"},{"type":"image_url",'
        '"image_url":{"url":"data:image/png;base64,AA=="}},{"type":"video_url","video_url":{"url":"x"}}]}], '
        '"model":"m",'
        '"mine":{"n":1.50, "deep":[null,1e3]},"temperature":0.10 }'
    )
    headers = {
        "Content-Type": "application/json",
        "x-anywire-priority": "-3",
        "x-anywire-timeout": "12.5",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    engine = says("ok")
    async with serving(engine) as served, aiohttp.ClientSession() as session:
        async with session.post(f"{served.url}/v1/chat/completions", data=text.encode(), headers=headers) as response:
            assert response.status == 200
        task = engine.tasks[0]
        assert task.body == text
        assert (task.priority, task.trace) == (-3, headers["traceparent"])
        assert 0 < task.time_left_ms <= 12_500


async def test_models_agents_stats_health_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serving(SyntheticEngine(SyntheticConfig(models=["b/x", "a"]))) as served,
        aiohttp.ClientSession() as session,
    ):
        async with served.client() as client:
            models = [model async for model in client.models.list()]
            assert [(model.id, model.owned_by, model.object) for model in models] == [
                ("a", "anywire", "model"),
                ("b/x", "anywire", "model"),
            ]
            assert (await client.models.retrieve("b/x")).id == "b/x"
            with pytest.raises(openai.NotFoundError, match="nothing"):
                await client.models.retrieve("nothing")

        async def get(path: str) -> Any:
            async with session.get(served.url + path) as response:
                assert response.status == 200
                return await response.json()

        agents = (await get("/api/v1/agents"))["data"]
        assert agents[0]["id"] == "agent-1"
        assert (
            agents[0]
            | {
                "transport": "memory",
                "engine": "synthetic",
                "models": ["b/x", "a"],
                "slots": 64,
                "state": "ready",
            }
            == agents[0]
        )
        assert agents[0]["load"] == {"active": 0, "queued": 0, "in_flight": 0}
        assert {"pid", "host", "incarnation", "specialization", "capabilities"} <= agents[0].keys()
        assert (await get("/api/v1/stats"))["transports"] == {"memory": 0}
        assert await get("/health") == {"status": "ok", "agents": 1, "models": 2}
        assert (await get("/version"))["name"] == "anywire"
        async with session.head(f"{served.url}/health") as response:
            assert response.status == 200
        served.orchestrator.close_gate()
        async with session.get(f"{served.url}/health") as response:
            assert response.status == 503


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_cancels_its_task(stream: bool) -> None:
    engine = hangs(*(["token"] if stream else []))
    async with serving(engine) as served:
        connection = await served.raw({"model": "m", "messages": MESSAGES, "stream": stream})
        await engine.began.wait()
        if stream:
            await connection.reader.readuntil(b"token")
        await connection.close()
        await engine.cancelled.wait()
        assert served.orchestrator.stats()["tasks"]["ended"] == {"cancelled": 1}


async def test_a_client_that_goes_away_leaves_the_queue() -> None:
    engine = hangs()
    async with serving(engine, slots=1) as served:
        first = await served.raw({"model": "m", "messages": MESSAGES})
        await engine.began.wait()
        second = await served.raw({"model": "m", "messages": MESSAGES, "stream": True})
        await served.observer.submitted(2)
        assert served.orchestrator.stats()["tasks"]["queued"] == 1
        await second.close()
        assert (await served.observer.ended.get()).error == "cancelled"
        assert served.orchestrator.stats()["tasks"]["queued"] == 0
        assert not engine.cancelled.is_set()
        await first.close()
        await engine.cancelled.wait()
        assert len(engine.tasks) == 1


async def test_a_task_is_cancelled_by_its_id() -> None:
    engine = hangs("token")
    async with serving(engine) as served, served.client() as client, aiohttp.ClientSession() as session:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        task = f"{served.url}/api/v1/tasks/{stream.response.headers['x-anywire-task']}"
        async with session.delete(task) as response:
            assert (response.status, (await response.json())["cancelled"]) == (200, True)
        await engine.cancelled.wait()
        with pytest.raises(openai.APIError, match="DELETE"):
            [event async for event in stream]
        async with session.delete(task) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "task_not_found")


async def test_a_client_that_does_not_read_stops_its_engine_and_nobody_else() -> None:
    produced = 0

    async def endless(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        nonlocal produced
        if not task.stream:
            yield Delta("short")
            return
        while True:
            produced += 1
            yield Delta("x" * 65536)
            await asyncio.sleep(0)

    engine = ScriptedEngine(endless)
    async with serving(engine, write_timeout=1.0) as served, served.client() as client:
        lazy = socket.create_connection(("127.0.0.1", served.port))
        body = json.dumps({"model": "m", "messages": MESSAGES, "stream": True}).encode()
        lazy.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        await engine.began.wait()
        for _ in range(20):
            answer = await client.chat.completions.create(model="m", messages=MESSAGES)
            assert answer.choices[0].message.content == "short"
        # Cut off at last, and what was produced until then fits the window and the socket's buffers.
        await engine.cancelled.wait()
        assert produced < 64 + 256
        lazy.close()


async def test_an_engine_s_error_after_the_first_token_ends_the_stream_with_it() -> None:
    engine = says("one", "two", then=EngineFailed("it broke"))
    async with serving(engine) as served, served.client() as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        texts: list[str] = []
        with pytest.raises(openai.APIError, match="it broke") as failure:
            await collect(stream, texts)
        assert "".join(texts) == "onetwo"
        assert failure.value.code == "engine_failed"
        connection = await served.raw({"model": "m", "messages": MESSAGES, "stream": True})
        text = (await connection.reader.readuntil(b"\r\n0\r\n\r\n")).decode()
        assert text.startswith("HTTP/1.1 200 OK\r\n")
        assert "[DONE]" not in text
        assert '"code":"engine_failed"' in text.rsplit("data: ", 1)[1]
        # The connection serves the next request.
        connection.post({"model": "nope", "messages": MESSAGES})
        assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        await connection.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_before_the_first_token_have_a_status(stream: bool) -> None:
    fault = InvalidRequest("too long", status=422, param="messages", detail_code="context_length_exceeded")
    async with serving(says(then=fault)) as served, served.client() as client:
        with pytest.raises(openai.UnprocessableEntityError) as found:
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        assert (found.value.param, found.value.code) == ("messages", "context_length_exceeded")
        assert found.value.response.headers["x-should-retry"] == "false"
    async with serving(says(then=EngineFailed("out of memory"))) as served, served.client() as client:
        with pytest.raises(openai.InternalServerError, match="out of memory") as failed:
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        assert (failed.value.status_code, failed.value.code) == (502, "engine_failed")
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="nope", messages=MESSAGES, stream=stream)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


async def test_a_full_queue_is_429_and_a_deadline_504() -> None:
    engine = hangs()
    async with serving(engine, slots=1, scheduler={"max_queue_size": 1}) as served, served.client() as client:
        running = await served.raw({"model": "m", "messages": MESSAGES})
        await engine.began.wait()
        waiting = await served.raw({"model": "m", "messages": MESSAGES})
        await served.observer.submitted(2)
        with pytest.raises(openai.RateLimitError) as full:
            await client.chat.completions.create(model="m", messages=MESSAGES)
        assert int(full.value.response.headers["retry-after"]) >= 1
        assert full.value.code == "queue_full"
        await waiting.close()
        assert (await served.observer.ended.get()).error == "cancelled"
        with pytest.raises(openai.InternalServerError) as late:
            await client.chat.completions.create(
                model="m", messages=MESSAGES, stream=True, extra_headers={"x-anywire-timeout": "0.05"}
            )
        assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")
        assert late.value.response.headers["x-should-retry"] == "false"
        await running.close()


async def test_many_streams_and_answers_at_once() -> None:
    async with serving(SyntheticEngine(SyntheticConfig(length=30)), slots=16) as served, served.client() as client:

        async def stream(number: int) -> tuple[str, str]:
            messages: list[Any] = [{"role": "user", "content": f"question {number}"}]
            whole = await client.chat.completions.create(model="synthetic", messages=messages)
            events = await client.chat.completions.create(model="synthetic", messages=messages, stream=True)
            return whole.choices[0].message.content or "", "".join(
                [event.choices[0].delta.content or "" async for event in events]
            )

        answers = await asyncio.gather(*(stream(number) for number in range(60)))
        assert all(whole == streamed for whole, streamed in answers)
        assert len({whole for whole, _ in answers}) == 60


async def test_http_1_0_gets_its_stream_until_the_connection_closes() -> None:
    async with serving(says("a", "b")) as served:
        connection = await served.raw({"model": "m", "messages": MESSAGES, "stream": True}, version="1.0")
        head, _, events = (await connection.reader.read()).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert events.startswith(b"data: {")
        assert events.endswith(b"data: [DONE]\n\n")
        await connection.close()


async def test_nagle_is_off_on_accepted_connections() -> None:
    async with serving(hangs()) as served:
        connection = await served.raw({"model": "m", "messages": MESSAGES})
        await served.observer.submitted(1)
        server = served.gateway._server
        assert server is not None
        (accepted,) = server.connections
        assert accepted.transport is not None
        option = accepted.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option
        await connection.close()


# Life


async def test_closing_lets_a_running_request_finish_and_takes_no_other() -> None:
    go = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("first")
        await go.wait()
        yield Delta("last")

    engine = ScriptedEngine(script)
    async with serving(engine) as served:
        connection = await served.raw({"model": "m", "messages": MESSAGES, "stream": True})
        await connection.reader.readuntil(b"first")
        closing = asyncio.create_task(served.gateway.close())
        # It closes its socket before it first waits for anything.
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", served.port)
        go.set()
        rest = await connection.reader.read()
        assert b"last" in rest
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        await closing
        await served.gateway.close()
        await connection.close()


async def test_closing_cuts_off_what_does_not_finish() -> None:
    engine = hangs("token")
    async with serving(engine, shutdown_grace=0.05) as served:
        streaming = await served.raw({"model": "m", "messages": MESSAGES, "stream": True})
        await streaming.reader.readuntil(b"token")
        waiting = await served.raw({"model": "m", "messages": MESSAGES})
        await served.observer.submitted(2)
        await served.gateway.close()
        await engine.cancelled.wait()
        assert served.orchestrator.stats()["tasks"] == {"running": 0, "queued": 0, "ended": {"cancelled": 2}}
        await streaming.close()
        await waiting.close()


async def test_closing_takes_the_rest_of_a_body_that_has_begun() -> None:
    """Else the client waits for the whole grace, and is cut off without an answer."""
    async with serving(says("answer"), shutdown_grace=30) as served:
        body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode() + body[:10])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        closing = asyncio.create_task(served.gateway.close())
        for _ in range(50):
            await asyncio.sleep(0)
        # What is pipelined behind it is not begun any more.
        writer.write(body[10:] + f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"answer" in answer
        assert answer.count(b"HTTP/1.1") == 1
        await closing
        writer.close()
        await writer.wait_closed()


async def test_the_pipeline_s_shutdown_reaches_clients_as_an_error_they_may_retry() -> None:
    engine = hangs()
    async with serving(engine) as served, served.client() as client:
        asking = asyncio.create_task(client.chat.completions.create(model="m", messages=MESSAGES))
        await engine.began.wait()
        await served.orchestrator.close()
        with pytest.raises(openai.InternalServerError) as cut:
            await asking
        assert cut.value.status_code == 503
        assert "x-should-retry" not in cut.value.response.headers
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(model="m", messages=MESSAGES)
        assert refused.value.status_code == 503


async def test_a_port_in_use_is_a_clear_error() -> None:
    async with serving(says("x")) as served:
        second = OpenAIGateway(OpenAIGatewayConfig(port=served.port))
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1 port {served.port}.*another.* port|another server\.port"):
            await second.start(served.context)
        await second.close()


@pytest.mark.parametrize(
    ("host", "hint"),
    [("no-such-host.invalid", "host name is not known"), ("192.0.2.1", "no interface of this machine")],
)
async def test_an_address_that_is_not_ours_is_a_clear_error(host: str, hint: str) -> None:
    async with serving(says("x")) as served:
        with pytest.raises(ConfigError, match=hint):
            await OpenAIGateway(OpenAIGatewayConfig(host=host, port=0)).start(served.context)


async def test_listening_beyond_this_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving(says("x"), host="0.0.0.0") as served:
            assert served.url.startswith("http://127.0.0.1:")
    assert "without authentication" in caplog.text
