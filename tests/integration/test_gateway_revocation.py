"""What a key has opened at the gateway `openai` ends when the key is revoked, and nothing of other keys does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from tests.integration.gateway_serving import MESSAGES, hangs, says, serving
from tests.integration.known_keys import KnownKeys, bearer

from anywire.route import EventStream, Request, Response, Route, ServerSentEvent
from anywire_gateway_openai import caller

CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}
GONE = "invalid_api_key"


async def begun(client: aiohttp.ClientSession, path: str, key: str) -> aiohttp.ClientResponse:
    """An event stream whose first comment is there."""
    answer = await client.get(path, headers=bearer(key))
    assert answer.status == 200
    await answer.content.readuntil(b"\n\n")
    return answer


def error_in(text: str) -> str:
    """The code of the error that is the last event of ``text``."""
    lines = [line for line in text.splitlines() if line.startswith("data: ")]
    return str(json.loads(lines[-1].removeprefix("data: "))["error"]["code"])


async def test_event_streams_of_the_key_end_with_an_error_and_no_others() -> None:
    keys = KnownKeys(alice="use", bob="use")
    async with serving(says("x"), access=keys) as served, aiohttp.ClientSession(served.url) as client:
        hers, his = await begun(client, "/v1/events", "alice"), await begun(client, "/v1/events", "bob")
        keys.revoke("alice")
        assert error_in(await hers.text()) == GONE
        async with client.post("/v1/chat/completions", json=CHAT, headers=bearer("bob")) as answer:
            assert answer.status == 200
        await his.content.readuntil(b"event: task.ended")
        async with client.get("/v1/models", headers=bearer("alice")) as answer:
            assert answer.status == 401
        his.close()


async def test_who_follows_another_ones_task_is_told_nothing_more_of_it() -> None:
    keys = KnownKeys(alice="use", root="operate", other="operate")
    async with serving(hangs("text"), access=keys) as served, aiohttp.ClientSession(served.url) as client:
        task = await client.post("/v1/chat/completions", json=CHAT | {"stream": True}, headers=bearer("alice"))
        path = f"/v1/tasks/{task.headers['x-anywire-task']}"
        followers = [await begun(client, f"{path}/follow", name) for name in ("root", "other")]
        keys.revoke("root")
        text = await followers[0].text()
        assert (error_in(text), "event: error" in text) == (GONE, True)
        assert not followers[1].content.at_eof()
        async with client.get(path, headers=bearer("alice")) as answer:
            assert answer.status == 200, "the task goes on"
        followers[1].close()
        task.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_of_the_key_end_at_their_clients_and_at_the_engine(stream: bool) -> None:
    keys, engine = KnownKeys(alice="use"), hangs("text")
    async with serving(engine, access=keys) as served, aiohttp.ClientSession(served.url) as client:
        sent = CHAT | {"stream": stream}
        asking = asyncio.ensure_future(client.post("/v1/chat/completions", json=sent, headers=bearer("alice")))
        if stream:
            await (await asking).content.readuntil(b"text")
        await engine.began.wait()
        keys.revoke("alice")
        answer = await asking
        assert answer.status == (200 if stream else 401)
        text = await answer.text()
        assert (error_in(text) if stream else json.loads(text)["error"]["code"]) == GONE
        assert "[DONE]" not in text
        await engine.cancelled.wait()


@pytest.mark.parametrize("answering", [False, True])
async def test_websockets_of_the_key_are_told_and_closed(answering: bool) -> None:
    keys, engine = KnownKeys(alice="use", bob="use"), hangs("text")
    async with (
        serving(engine, access=keys) as served,
        aiohttp.ClientSession(served.url) as client,
        client.ws_connect("/v1/ws/chat", headers=bearer("alice")) as hers,
        client.ws_connect("/v1/chat/completions", protocols=("anywire", "anywire-key.bob")) as his,
    ):
        assert his.protocol == "anywire"
        if answering:
            await hers.send_json(CHAT)
            while "text" not in await hers.receive_str():
                pass
        keys.revoke("alice")
        assert (await hers.receive_json())["error"]["code"] == GONE
        closing = await hers.receive()
        assert (closing.type, closing.data) == (WSMsgType.CLOSE, 4401)
        if answering:
            await engine.cancelled.wait()
        await his.send_json(CHAT)
        while "text" not in await his.receive_str():
            pass


async def test_each_question_of_a_websocket_is_of_whom_its_key_or_token_stands_for_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody tells of a token that runs out, or of a key whose limits are others."""
    monkeypatch.setattr(caller, "REMEMBERED_S", 0.0)
    keys, engine = KnownKeys(alice="use"), says("text")
    async with (
        serving(engine, access=keys) as served,
        aiohttp.ClientSession(served.url) as client,
        client.ws_connect("/v1/ws/chat", headers=bearer("alice")) as socket,
    ):
        keys.add("alice", tenant="another")
        await socket.send_json(CHAT | {"stream": False})
        assert "choices" in await socket.receive_json()
        assert await socket.receive_str() == "[DONE]"
        assert [each.tenant for each in engine.tasks] == ["another"]
        keys.gone.add("alice")
        await socket.send_json(CHAT)
        assert (await socket.receive_json())["error"]["code"] == GONE
    assert len(engine.tasks) == 1


@pytest.mark.parametrize("offered", [("anywire-key.alice",), ("anywire-key.alice", "other"), ("anywire-key.wrong",)])
async def test_a_key_among_the_subprotocols_is_neither_sent_back_nor_logged(
    offered: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with serving(says("x"), access=KnownKeys(alice="use")) as served, aiohttp.ClientSession(served.url) as client:
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                     "Sec-WebSocket-Key": "MTIzNDU2Nzg5MDEyMzQ1Ng=="}  # fmt: skip
        async with client.get(
            "/v1/ws/chat", headers=handshake | {"Sec-WebSocket-Protocol": ", ".join(offered)}
        ) as answer:
            assert answer.status == (401 if "wrong" in offered[0] else 101)
            assert "Sec-WebSocket-Protocol" not in answer.headers
    told = [each.getMessage() for each in caplog.records if each.name.startswith(("aiohttp", "anywire"))]
    assert not [each for each in told if "anywire-key" in each or "alice" in each]


class Waits:
    """A service with a route that streams and one that answers, both when a test lets them."""

    def __init__(self) -> None:
        self.asked, self.closed = asyncio.Event(), asyncio.Event()

    async def stream(self, request: Request) -> EventStream:
        return EventStream(self._events())

    async def _events(self) -> AsyncIterator[ServerSentEvent]:
        try:
            yield ServerSentEvent("first")
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    async def answer(self, request: Request) -> Response:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.closed.set()
        return Response()


async def test_what_a_service_answers_ends_too() -> None:
    keys, service = KnownKeys(alice="use"), Waits()
    async with serving(says("x"), access=keys) as served, aiohttp.ClientSession(served.url) as client:
        served.context.routes.add(Route("GET", "/waits", service.stream), Route("POST", "/waits", service.answer))
        stream = await begun(client, "/v1/waits", "alice")
        keys.revoke("alice")
        assert error_in(await stream.text()) == GONE
        await service.closed.wait()
        keys.gone.clear()
        asking = asyncio.ensure_future(client.post("/v1/waits", headers=bearer("alice")))
        await service.asked.wait()
        keys.revoke("alice")
        answer = await asking
        assert (answer.status, (await answer.json())["error"]["code"]) == (401, GONE)
        async with client.get("/v1/models", headers=bearer("alice")) as answer:
            assert answer.status == 401


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/upload"])
async def test_a_body_that_arrives_after_the_end_of_its_key_does_nothing(path: str) -> None:
    keys, taken = KnownKeys(alice="use", bob="use"), []

    async def take(request: Request) -> Response:
        taken.append(request.caller)
        return Response()

    async with serving(says("x"), access=keys) as served:
        served.context.routes.add(Route("POST", "/upload", take))
        for revoked, status in (("bob", b"200"), ("alice", b"401")):
            body = json.dumps(CHAT).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            asked = len(keys.presented)
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"Authorization: Bearer alice\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
            assert len(keys.presented) == asked + 1
            keys.revoke(revoked)
            writer.write(body)
            assert (await reader.readline()).split()[1] == status
            writer.close()
        assert len(taken) + sum(served.context.stats()["tasks"]["ended"].values()) == 1


async def test_nothing_is_left_behind_of_what_has_ended() -> None:
    keys = KnownKeys(alice="use")
    async with serving(hangs("text"), access=keys) as served, aiohttp.ClientSession(served.url) as client:
        for _ in range(3):
            (await begun(client, "/v1/events", "alice")).close()
            async with client.ws_connect("/v1/ws/chat", headers=bearer("alice")):
                pass
        callers = served.gateway._callers
        assert callers is not None
        assert keys.listeners == 2, "the gateway and the orchestrator"
    assert (keys.listeners, callers.revocations._watching) == (0, {})


@pytest.mark.parametrize("other", [False, True])
async def test_on_one_connection_a_key_counts_until_any_goes_and_for_nobody_else(other: bool) -> None:
    keys = KnownKeys(alice="use", olga="observe", bob="use")
    async with (
        serving(says("x"), access=keys) as served,
        aiohttp.ClientSession(served.url, connector=aiohttp.TCPConnector(limit=1)) as client,
    ):

        async def status(key: str, path: str = "/v1/stats", **headers: str) -> int:
            async with client.get(path, headers=bearer(key) | headers) as answer:
                await answer.read()
                return answer.status

        assert [await status(key) for key in ("olga", "olga", "alice", "olga", "ölga", "olg", "")] == [
            200, 200, 403, 200, 401, 401, 401]  # fmt: skip
        assert await status("olga", Via="1.1 proxy") == 200
        assert keys.presented[-1].peer == "127.0.0.1"
        keys.revoke("bob" if other else "olga")
        assert await status("olga") == (200 if other else 401)


async def test_a_connection_asks_again_about_its_key_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, now = KnownKeys(alice="use"), [0.0]
    monkeypatch.setattr(caller, "time", SimpleNamespace(monotonic=lambda: now[0]))
    async with serving(says("x"), access=keys) as served, aiohttp.ClientSession(served.url) as client:
        for at, asked, status in ((0.0, 1, 200), (0.9, 1, 200), (1.0, 2, 200), (1.9, 2, 200), (2.0, 3, 401)):
            now[0] = at
            if at == 1.9:
                keys.gone.add("alice")  # without a word
            async with client.get("/v1/models", headers=bearer("alice")) as answer:
                assert (answer.status, len(keys.presented)) == (status, asked)
