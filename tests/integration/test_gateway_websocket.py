"""Chat over WebSocket: the same answers as over HTTP, one request after another, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, hangs, says, serving
from tests.long_form import examples

from anywire import errors
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed
from anywire.messages import Chunk, TaskRequest
from anywire_gateway_openai import websocket
from anywire_gateway_openai.sse import EventEncoder
from anywire_gateway_openai.websocket import MAX_AHEAD, payloads

Socket = aiohttp.ClientWebSocketResponse
CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}


@asynccontextmanager
async def connected(served: Served, path: str = "/v1/ws/chat", **options: Any) -> AsyncIterator[Socket]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(served.url + path, **{"max_msg_size": 0} | options) as ws,
    ):
        yield ws


async def answer(ws: Socket) -> list[Any]:
    """The frames of one answer, up to and with the one that ends it."""
    frames: list[Any] = []
    while not frames or (frames[-1] != "[DONE]" and "error" not in frames[-1]):
        text = await ws.receive_str()
        frames.append(text if text == "[DONE]" else json.loads(text))
    return frames


async def ask(ws: Socket, **fields: Any) -> list[Any]:
    await ws.send_str(json.dumps(CHAT | fields))
    return await answer(ws)


def same(frames: list[Any]) -> list[Any]:
    """Without what differs between two answers to one question."""
    return [frame if isinstance(frame, str) else frame | {"id": "", "created": 0} for frame in frames]


USAGE = '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}'


PATHS = ["/v1/ws/chat", "/v1/chat/completions"]
"""Existing clients of other servers know the second one."""


@pytest.mark.parametrize("path", [*PATHS, *(f"/api{path}" for path in PATHS)])
async def test_the_frames_are_the_events_of_the_same_request_over_http(path: str) -> None:
    extra = '[{"index":1,"delta":{"content":"é\\n\\n data: \u2028"},"finish_reason":null}]'
    engine = says("Hel", "lo\n\ndata: [DONE]\n\n", Delta("", extra), Delta("!", finish_reason="length", usage=USAGE))
    fields = {"stream_options": {"include_usage": True}, "stream": True}
    async with serving(engine) as served, connected(served, path) as ws, aiohttp.ClientSession() as session:
        frames = await ask(ws, **fields)
        async with session.post(f"{served.url}/v1/chat/completions", json=CHAT | fields) as response:
            events = [event.data for event in SSEDecoder().iter_bytes(iter([await response.read()]))]
        assert same(frames) == same([event if event == "[DONE]" else json.loads(event) for event in events])
        assert len({frame["id"] for frame in frames[:-1]}) == 1
        assert frames[-2]["usage"]["total_tokens"] == 5
        assert [task.stream for task in engine.tasks] == [True, True]
        assert engine.tasks[0].body == json.dumps(CHAT | fields)


async def test_a_whole_answer_is_one_frame() -> None:
    engine = says("Hel", Delta("lo", finish_reason="stop", usage=USAGE))
    async with serving(engine) as served, connected(served) as ws:
        whole, done = await ask(ws, stream=False)
        assert whole["object"] == "chat.completion"
        assert whole["choices"][0]["message"]["content"] == "Hello"
        assert done == "[DONE]"
        assert not engine.tasks[0].stream
        await ask(ws)
        assert engine.tasks[1].stream


async def test_what_needs_a_stream_needs_no_word_of_it_where_every_request_is_streamed() -> None:
    async with serving(says(Delta("x", finish_reason="stop", usage=USAGE))) as served, connected(served) as ws:
        frames = await ask(ws, stream_options={"include_usage": True})
        assert frames[-2]["usage"]["total_tokens"] == 5
        whole, done = await ask(ws, stream_options={"include_usage": True}, stream=False)
        assert (whole["usage"]["total_tokens"], done) == (5, "[DONE]")


async def test_the_handshake_has_a_request_id() -> None:
    async with serving(says("x")) as served, connected(served, headers={"x-request-id": "mine"}) as ws:
        assert ws._response.headers["x-request-id"] == "mine"


async def test_headers_of_the_handshake_count_for_every_request() -> None:
    engine = says("x")
    headers = {"x-anywire-priority": "7", "x-anywire-timeout": "12"}
    async with serving(engine) as served, connected(served, headers=headers) as ws:
        await ask(ws)
        await ask(ws)
        assert [task.priority for task in engine.tasks] == [7, 7]
        assert all(0 < task.time_left_ms <= 12_000 for task in engine.tasks)


async def test_progress_is_a_frame_for_a_client_that_asks_for_it() -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield EngineProgress("loading", "m")
        yield Delta("one")

    async with serving(ScriptedEngine(script)) as served:
        async with connected(served, headers={"x-anywire-progress": "true"}) as ws:
            frames = await ask(ws)
            assert frames[0] == {"progress": {"state": "loading", "detail": "m"}}
            assert frames[-1] == "[DONE]"
            assert not any("progress" in frame for frame in await ask(ws, stream=False))
        async with connected(served) as ws:
            assert not any("progress" in frame for frame in await ask(ws))


async def test_an_error_is_a_frame_and_the_connection_goes_on() -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if "before" in task.body:
            raise EngineFailed("no memory")
        yield Delta("one")
        if "within" in task.body:
            await asyncio.sleep(0)
            raise EngineFailed("it broke")

    async with serving(ScriptedEngine(script)) as served, connected(served) as ws:

        async def refused(frame: str | bytes, code: str) -> dict[str, Any]:
            await (ws.send_bytes(frame) if isinstance(frame, bytes) else ws.send_str(frame))
            frames = await answer(ws)
            error: dict[str, Any] = frames[-1]["error"]
            assert error.keys() == {"message", "type", "param", "code", "origin"}
            assert (error["code"], error["origin"]) == (code, errors.BY_CODE[code].arises)
            assert (await ask(ws))[-1] == "[DONE]"
            return error

        assert "not valid JSON" in (await refused("{nonsense", "invalid_request"))["message"]
        assert "empty" in (await refused("", "invalid_request"))["message"]
        assert (await refused('{"model":"m"}', "invalid_request"))["param"] == "messages"
        assert "text frame" in (await refused(json.dumps(CHAT).encode(), "invalid_request"))["message"]
        await refused(json.dumps(CHAT | {"model": "nope"}), "model_not_found")
        for stream in (True, False):
            await refused(json.dumps(CHAT | {"user": "before", "stream": stream}), "engine_failed")
            await refused(json.dumps(CHAT | {"user": "within", "stream": stream}), "engine_failed")


requests = st.lists(st.sampled_from(["stream", "whole", "bad", "binary", "unknown"]), min_size=1, max_size=MAX_AHEAD)


@settings(max_examples=examples(15))
@given(requests)
def test_requests_sent_ahead_are_answered_one_by_one_in_order(kinds: list[str]) -> None:
    async def scenario() -> None:
        running = most = 0

        async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                yield Delta(json.loads(task.body)["user"])
                await asyncio.sleep(0)
                yield Delta("!")
            finally:
                running -= 1

        async with serving(ScriptedEngine(script)) as served, connected(served) as ws:
            for number, kind in enumerate(kinds):
                body = json.dumps(
                    {"model": "m", "messages": "no" if kind == "bad" else MESSAGES, "user": str(number)}
                    | ({"model": "nope"} if kind == "unknown" else {})
                    | ({"stream": False} if kind == "whole" else {})
                )
                await (ws.send_bytes(body.encode()) if kind == "binary" else ws.send_str(body))
            for number, kind in enumerate(kinds):
                *frames, last = await answer(ws)
                if kind in ("stream", "whole"):
                    assert last == "[DONE]"
                    key = "delta" if kind == "stream" else "message"
                    text = "".join(frame["choices"][0][key].get("content") or "" for frame in frames)
                    assert text == f"{number}!"
                else:
                    code = "model_not_found" if kind == "unknown" else "invalid_request"
                    assert (frames, last["error"]["code"]) == ([], code)
            assert most <= 1

    asyncio.run(scenario())


async def test_too_many_requests_ahead_end_the_connection() -> None:
    engine = hangs()
    async with serving(engine) as served, connected(served) as ws:
        for _ in range(MAX_AHEAD + 2):
            await ws.send_str(json.dumps(CHAT))
        message = await ws.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        await engine.cancelled.wait()


async def test_binary_frames_ahead_end_the_connection_too() -> None:
    async with serving(hangs()) as served, connected(served) as ws:
        for _ in range(MAX_AHEAD + 2):
            await ws.send_bytes(b"x")
        await ws.send_str(json.dumps(CHAT))
        for _ in range(MAX_AHEAD + 2):
            await ws.send_bytes(b"x")
        while (message := await ws.receive()).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, aiohttp.WSCloseCode.POLICY_VIOLATION)


async def test_thousands_of_pings_at_once_let_the_event_loop_run(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [0]
    pong = websocket._Socket.pong

    async def counted(self: Any, message: bytes = b"") -> None:
        turns[-1] += 1
        await pong(self, message)

    monkeypatch.setattr(websocket._Socket, "pong", counted)
    loop, count = asyncio.get_running_loop(), 2000

    def next_turn() -> None:
        turns.append(0)
        if sum(turns) < count:
            loop.call_soon(next_turn)

    async with serving(hangs()) as served, connected(served, autoping=False) as ws:
        loop.call_soon(next_turn)
        transport = ws._writer.transport
        assert transport is not None
        transport.write(b"\x89\x80\0\0\0\0" * count)
        for _ in range(count):
            assert (await ws.receive()).type is WSMsgType.PONG
    assert sum(turns) == count
    assert max(turns) <= websocket.MAX_AT_ONCE


async def test_requests_ahead_take_no_more_memory_than_one() -> None:
    async with serving(hangs(), max_body_bytes=100_000) as served, connected(served) as ws:
        for _ in range(3):
            await ws.send_str(json.dumps(CHAT | {"user": "x" * 60_000}))
        assert (await ws.receive()).data == 1008


@pytest.mark.parametrize("size", [100_001, 20_000_000])
async def test_a_frame_that_is_too_large_is_told_so(size: int) -> None:
    async with serving(says("x"), max_body_bytes=100_000) as served:
        async with connected(served) as ws:
            assert (await ask(ws, user="x" * 99_000))[-1] == "[DONE]"
            await ws.send_str("x" * size)
            error = json.loads(await ws.receive_str())["error"]
            assert (error["code"], "100000" in error["message"]) == ("payload_too_large", True)
            message = await ws.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)
        async with connected(served) as ws:
            assert (await ask(ws))[-1] == "[DONE]"


@pytest.mark.parametrize(("frames", "size", "code"), [(1, 200_000, 1009), (MAX_AHEAD + 1, 100, 1008)])
async def test_an_answer_stops_before_the_connection_is_refused(
    monkeypatch: pytest.MonkeyPatch, frames: int, size: int, code: int
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_S", 60.0)

    async def endless(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        while True:
            yield Delta("x")
            await asyncio.sleep(0)

    engine = ScriptedEngine(endless)
    async with serving(engine, max_body_bytes=100_000) as served, connected(served, autoclose=False) as ws:
        await ws.send_str(json.dumps(CHAT))
        await ws.receive_str()
        for _ in range(frames):
            await ws.send_str(json.dumps(CHAT | {"user": "x" * size}))
        while (message := await ws.receive()).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, code)
        # The client has not hung up yet.
        await engine.cancelled.wait()


@pytest.mark.parametrize("size", [0, 1, 40, 125, 126, 65_400, 65_536, 70_000])
async def test_frames_of_every_size(size: int) -> None:
    async with serving(says("x" * size, "y")) as served, connected(served) as ws:
        frames = await ask(ws)
        assert "".join(frame["choices"][0]["delta"].get("content", "") for frame in frames[:-1]) == "x" * size + "y"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("politely", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_cancels_what_runs_and_what_waits(
    politely: bool, stream: bool, path: str
) -> None:
    engine = hangs("token")
    async with serving(engine) as served, connected(served, path) as ws:
        await ws.send_str(json.dumps(CHAT | {"stream": stream}))
        await ws.send_str(json.dumps(CHAT))
        await engine.began.wait()
        if politely:
            await ws.close()
        else:
            assert ws._writer.transport is not None
            ws._writer.transport.abort()
        await engine.cancelled.wait()
        assert (await served.observer.ended.get()).error == "cancelled"
        assert len(engine.tasks) == 1


async def test_a_client_that_does_not_read_stops_its_engine_and_nobody_else() -> None:
    produced = 0

    async def endless(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        nonlocal produced
        if "short" in task.body:
            yield Delta("short")
            return
        while True:
            produced += 1
            yield Delta("x" * 65536)
            await asyncio.sleep(0)

    engine = ScriptedEngine(endless)
    async with serving(engine, write_timeout=1.0) as served, connected(served) as other:
        lazy = socket.create_connection(("127.0.0.1", served.port))
        lazy.sendall(
            b"GET /v1/ws/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        body = json.dumps(CHAT).encode()  # masked with zeros
        lazy.sendall(b"\x81" + bytes([0x80 | len(body)]) + bytes(4) + body)
        await engine.began.wait()
        for _ in range(20):
            assert (await ask(other, user="short"))[-1] == "[DONE]"
        # Cut off at last, and what was produced until then fits the window and the socket's buffers.
        await engine.cancelled.wait()
        assert produced < 64 + 256
        lazy.close()


async def test_a_silent_client_is_pinged_and_stays_while_it_answers() -> None:
    async with serving(says("x"), heartbeat=0.02) as served, connected(served, autoping=False) as ws:
        for _ in range(3):
            assert (await ws.receive()).type is WSMsgType.PING
            await ws.pong()
        assert (await ask_through_pings(ws))[-1] == "[DONE]"
        await ws.ping(b"and you?")
        while (message := await ws.receive()).type is not WSMsgType.PONG:
            assert message.type is WSMsgType.PING
        assert message.data == b"and you?"


async def ask_through_pings(ws: Socket) -> list[str]:
    await ws.send_str(json.dumps(CHAT))
    texts: list[str] = []
    while "[DONE]" not in texts:
        message = await ws.receive()
        if message.type is WSMsgType.TEXT:
            texts.append(message.data)
        else:
            assert message.type is WSMsgType.PING
            await ws.pong()
    return texts


async def test_a_client_that_answers_no_ping_is_cut_off() -> None:
    engine = hangs("token")
    async with (
        serving(engine, heartbeat=0.05, write_timeout=0.1) as served,
        connected(served, autoping=False) as ws,
    ):
        await ws.send_str(json.dumps(CHAT))
        assert (await ws.receive()).type is WSMsgType.TEXT
        await engine.cancelled.wait()


# Life


async def test_closing_ends_idle_connections_and_lets_a_running_answer_finish() -> None:
    go = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield Delta("first")
        await go.wait()
        yield Delta("last")

    async with serving(ScriptedEngine(script)) as served, connected(served) as idle, connected(served) as busy:
        await busy.send_str(json.dumps(CHAT))
        while "first" not in await busy.receive_str():
            pass
        closing = asyncio.create_task(served.gateway.close())
        message = await idle.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
        go.set()
        frames = await answer(busy)
        assert frames[0]["choices"][0]["delta"]["content"] == "last"
        assert frames[-1] == "[DONE]"
        assert (await busy.receive()).data == 1001
        await closing


async def test_closing_cuts_off_an_answer_that_does_not_finish() -> None:
    engine = hangs("token")
    async with serving(engine, shutdown_grace=0.05) as served, connected(served) as ws:
        await ws.send_str(json.dumps(CHAT))
        await engine.began.wait()
        await served.gateway.close()
        await engine.cancelled.wait()


# Handshake


async def test_what_is_no_handshake_is_refused_in_the_same_form() -> None:
    async with serving(says("x")) as served, aiohttp.ClientSession() as session:
        url = f"{served.url}/v1/ws/chat"
        async with session.get(url) as response:
            assert (response.status, response.headers["Upgrade"]) == (426, "websocket")
            assert (await response.json())["error"]["code"] == "upgrade_required"
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        async with session.get(url, headers=headers) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "invalid_request"
        async with session.get(url, headers=headers | {"x-anywire-timeout": "never"}) as response:
            assert (response.status, (await response.json())["error"]["param"]) == (400, "x-anywire-timeout")
        async with session.post(url, json=CHAT) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET")
        # Without a handshake the path is what it is to every client of OpenAI's.
        async with session.get(f"{served.url}/v1/chat/completions") as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
        async with session.head(f"{served.url}/v1/chat/completions", headers=headers) as response:
            assert response.status == 405


LOCAL = ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:80", "https://app.localhost", "HTTP://LOCALHOST"]
FOREIGN = ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "file://",
           "http://10.0.0.7.evil", "", "http://[::1", "https://good.example:444", "http://good.example"]  # fmt: skip


@pytest.mark.parametrize("socket_path", PATHS)
async def test_a_page_of_another_address_is_refused(socket_path: str) -> None:
    async with (
        serving(says("x")) as served,
        aiohttp.ClientSession(headers={"Origin": "http://10.0.0.7:8080"}) as session,
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(served.url + socket_path)
        assert refused.value.status == 403
        async with session.post(f"{served.url}/v1/chat/completions", data="{}") as answer:
            assert answer.status == 403


@pytest.mark.parametrize("socket_path", PATHS)
@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_page_of_another_site_is_refused(origin: str, socket_path: str) -> None:
    async with (
        serving(says("x"), allowed_origins=["https://good.example"]) as served,
        aiohttp.ClientSession() as session,
    ):
        # A site may give its own name this machine's address: then Host agrees with Origin, and means nothing.
        headers = {"Origin": origin, "Host": origin.partition("//")[2] or "x"}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(served.url + socket_path, headers=headers)
        assert refused.value.status == 403
        # A browser sends this without asking first: a body of no type.
        for method, path in (
            ("POST", "/v1/chat/completions"), ("POST", "/v1/chat/completions_stream"), ("DELETE", "/v1/tasks/x"),
        ):  # fmt: skip
            async with session.request(
                method, served.url + path, data=json.dumps(CHAT).encode(), headers=headers
            ) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"]) == (403, "origin_not_allowed")
                assert "allowed_origins" in error["message"]
        assert served.orchestrator.stats()["tasks"]["ended"] == {}


@pytest.mark.parametrize("origin", [*LOCAL, "https://good.example", "HTTPS://Good.Example"])
async def test_pages_of_this_machine_and_listed_ones_may(origin: str) -> None:
    headers = {"Origin": origin}
    async with (
        serving(says("x"), allowed_origins=["https://Good.example/"]) as served,
        connected(served, headers=headers) as ws,
    ):
        assert (await ask(ws))[-1] == "[DONE]"


async def test_every_page_may_if_so_configured() -> None:
    headers = {"Origin": "https://evil.example"}
    async with serving(says("x"), allowed_origins=["*"]) as served, connected(served, headers=headers) as ws:
        assert (await ask(ws))[-1] == "[DONE]"


async def test_many_connections_at_once() -> None:
    async with serving(SyntheticEngine(SyntheticConfig(length=30)), slots=8) as served:

        async def one(number: int) -> tuple[str, str]:
            async with connected(served) as ws:
                fields = {"model": "synthetic", "messages": [{"role": "user", "content": f"question {number}"}]}
                whole, _ = await ask(ws, **fields, stream=False)
                frames = (await ask(ws, **fields))[:-1]
                return whole["choices"][0]["message"]["content"], "".join(
                    frame["choices"][0]["delta"].get("content", "") for frame in frames
                )

        answers = await asyncio.gather(*(one(number) for number in range(40)))
        assert all(whole == streamed for whole, streamed in answers)
        assert len({whole for whole, _ in answers}) == 40


any_text = st.text(st.characters(exclude_categories=()) | st.sampled_from('\u2028\x85\n\r"\\\ud83d: data'))


@given(texts=st.lists(any_text, max_size=5), usage=st.sampled_from(["", "{}", '{"a":\n{"b":\r\n\n1}}']))
def test_payloads_are_what_the_official_parser_finds(texts: list[str], usage: str) -> None:
    encoder = EventEncoder("chat", "t", "m", True)
    chunks = [Chunk("h", "t", 1, 0, tuple(texts)), Chunk("h", "t", 1, len(texts), final=True, usage=usage)]
    events = encoder.events(chunks)
    assert [each.decode() for each in payloads(events)] == [
        event.data for event in SSEDecoder().iter_bytes(iter([events]))
    ]
