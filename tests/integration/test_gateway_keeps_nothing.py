"""What a request held is gone once it is answered, however that was: nothing waits for the next look for cycles."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.gateway_serving import MESSAGES, Raw, hangs, says, serving

from anywire.errors import EngineFailed
from anywire_gateway_openai.http1.request import ServedRequest

CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}
REPEATED = 20
ASKED: dict[str, tuple[dict[str, Any], bytes]] = {
    "answered": ({}, b"200"),
    "streamed": ({"stream": True}, b"200"),
    "no such model": ({"model": "other"}, b"404"),
    "no such models": ({"model": "other", "models": ["another"]}, b"404"),
    "no such member": ({"messages": 5}, b"400"),
    "failed": ({}, b"502"),
    "failed at once": ({"stream": True}, b"502"),
    "broken off": ({"stream": True}, b"200"),
}


@pytest.fixture
def no_looks() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def kept() -> int:
    return sum(type(each) is ServedRequest for each in gc.get_objects())


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("how", ASKED)
async def test_nothing_of_a_request_stays(how: str) -> None:
    members, status = ASKED[how]
    failure = EngineFailed("broken") if how in ("failed", "failed at once", "broken off") else None
    texts = () if how in ("failed", "failed at once") else ("one", "two")
    async with serving(says(*texts, then=failure), pipeline={"max_attempts": 1}) as served:
        for _ in range(REPEATED):
            connection = await served.raw(CHAT | members, version="1.0")
            assert (await connection.reader.read()).split()[1] == status
            await connection.close()
        assert kept() <= 1


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("texts", [(), ("one", "two")])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/api/chat", "/v1/completions"])
async def test_nothing_of_a_request_that_failed_stays_in_another_api(
    path: str, texts: tuple[str, ...], streams: bool
) -> None:
    of_path: dict[str, dict[str, Any]] = {
        "/v1/messages": {"messages": MESSAGES, "max_tokens": 5},
        "/v1/responses": {"input": "hello", "store": False},
        "/api/chat": {"messages": MESSAGES},
        "/v1/completions": {"prompt": "hello"},
    }
    asked = {"model": "m", "stream": streams} | of_path[path]
    async with serving(says(*texts, then=EngineFailed("broken")), pipeline={"max_attempts": 1}) as served:
        for _ in range(REPEATED):
            connection = await served.raw(asked, path, version="1.0")
            assert b"broken" in await connection.reader.read()
            await connection.close()
        assert kept() <= 1


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("texts", [(), ("one", "two")])
async def test_nothing_of_a_request_with_an_idempotency_key_stays(texts: tuple[str, ...]) -> None:
    async with serving(says(*texts, then=EngineFailed("broken")), pipeline={"max_attempts": 1}) as served:
        for number in range(REPEATED):
            connection = Raw(*await asyncio.open_connection("127.0.0.1", served.port))
            body = json.dumps(CHAT | {"stream": True}).encode()
            head = f"Idempotency-Key: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.writer.write(b"POST /v1/chat/completions HTTP/1.0\r\n" + head.encode() + body)
            assert b"broken" in await connection.reader.read()
            await connection.close()
        assert kept() <= 1


@pytest.mark.usefixtures("no_looks")
async def test_nothing_of_a_request_stays_whose_client_goes_away() -> None:
    engine = hangs("one")
    async with serving(engine) as served:
        for _ in range(REPEATED):
            engine.cancelled.clear()
            connection = await served.raw(CHAT | {"stream": True})
            await connection.reader.readuntil(b"one")
            await connection.close()
            await engine.cancelled.wait()
        assert kept() <= 1
