"""Connections to the gateway that say nothing, or half of something, and event streams that one address opens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, hangs, says, serving
from tests.integration.test_gateway_event_stream import events, http

import anywire.listening.connection_limit
from anywire_gateway_openai import event_streams

HALVES = {
    "nothing": b"",
    "half a line": b"POST /v1/chat",
    "half a head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-",
}
BODY = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
ASK = {"model": "m", "messages": MESSAGES}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
async def test_a_connection_with_half_of_a_head_is_closed_and_one_with_a_running_request_is_not(half: bytes) -> None:
    async with serving(hangs("a"), idle_timeout=0.3) as served:
        running = await served.raw(ASK | {"stream": True})
        assert await asyncio.wait_for(running.reader.readline(), TIMEOUT) == b"HTTP/1.1 200 OK\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(half)
        assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
        writer.close()
        assert not running.reader.at_eof()
        assert len(served.orchestrator.tasks()) == 1
        await running.close()


async def test_many_half_requests_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anywire.listening.connection_limit, "descriptors", lambda: 40)
    async with serving(says("a")) as served, http(served) as client:
        assert (await client.get("/health")).status_code == 200
        halves = []
        for number in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(BODY if number % 2 else HALVES["half a head"])
            halves.append((reader, writer))
        for reader, _ in halves[:60]:
            assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
        assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
        for _, writer in halves:
            writer.close()


async def test_one_address_has_a_part_of_the_event_streams(monkeypatch: Any) -> None:
    monkeypatch.setattr(event_streams, "MAX_OF_ONE", 1)
    async with serving(says("a")) as served, http(served) as client:
        async with events(client), events(client) as second:
            assert second.status == 429
            answer = await second.response.aread()
            assert b"too_many_streams" in answer
            assert b"127.0.0.1" in answer
        async with events(client) as third:
            assert third.status == 200
