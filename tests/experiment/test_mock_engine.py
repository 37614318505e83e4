"""The engine that plans start: OpenAI's API, a pace, slots, equal answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.patience import PATIENCE

from anywire_experiment.mock_engine.connection import LARGEST, Connection
from anywire_experiment.mock_engine.engine import Engine, Pace

pytestmark = pytest.mark.timeout(120)
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def engine(
    first: float = 0.0, each: float = 0.0, slots: int = 0, whole: float | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one that listens in this process."""
    made = Engine(Pace(first, each, slots, whole))
    server = await asyncio.get_running_loop().create_server(lambda: Connection(made), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=PATIENCE, trust_env=False) as client:
        yield client
    server.close()


def asked(text: str = "Hello", **members: Any) -> dict[str, Any]:
    return {"model": "mock", "messages": [{"role": "user", "content": text}], "max_tokens": 5} | members


async def streamed(client: httpx.AsyncClient, **members: Any) -> list[dict[str, Any]]:
    """The events of a stream, the mark of its end left out."""
    async with client.stream("POST", CHAT, json=asked(stream=True, **members)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_a_stream_and_a_whole_answer_have_the_same_text_by_the_last_message_alone() -> None:
    async with engine() as client:
        whole = (await client.post(CHAT, json=asked())).json()
        events = await streamed(client, stream_options={"include_usage": True})
        other = (await client.post(CHAT, json=asked("Good-bye"))).json()
    text = whole["choices"][0]["message"]["content"]
    assert len(text.split()) == 5
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in events[:-1]) == text
    assert len(events) == 1 + 5 + 1 + 1, "the role, a token each, the reason, the usage"
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == 5
    assert other["choices"][0]["message"]["content"] != text


async def test_tokens_come_at_their_times() -> None:
    async with engine(first=0.05, each=0.02) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with client.stream("POST", CHAT, json=asked(stream=True)) as response:
            times = [loop.time() - began async for line in response.aiter_lines() if '"content":"' in line]
        began = loop.time()
        await client.post(CHAT, json=asked())
        took = loop.time() - began
    async with engine(first=5.0, whole=0.0) as client:
        began = loop.time()
        await client.post(CHAT, json=asked())
        at_once = loop.time() - began
    tokens = times[1:]  # the first event has the role and no text
    assert len(tokens) == 5
    assert all(at >= 0.05 + 0.02 * number - 0.002 for number, at in enumerate(tokens))
    assert took >= 0.05 + 4 * 0.02 - 0.002, "a whole answer comes with its last token"
    assert at_once < 5.0, "or when it is told to"


async def test_requests_beyond_the_slots_wait_in_order_and_a_reader_that_leaves_gives_its_slot_back() -> None:
    async with engine(first=0.02, slots=1) as client:
        done: list[int] = []

        async def ask(number: int) -> None:
            await client.post(CHAT, json=asked())
            done.append(number)

        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(ask(number)))
            await asyncio.sleep(0)
        async with client.stream("POST", CHAT, json=asked(stream=True, max_tokens=1_000_000)) as response:
            async for _ in response.aiter_lines():
                break
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
        assert sorted(done) == [0, 1, 2, 3]
        async with asyncio.timeout(PATIENCE):
            await client.post(CHAT, json=asked())


async def test_a_reader_that_stands_still_is_waited_for_and_nothing_is_kept_for_it() -> None:
    loop = asyncio.get_running_loop()
    paused: asyncio.Future[int] = loop.create_future()

    class Told(Connection):
        def pause_writing(self) -> None:
            super().pause_writing()
            if not paused.done():
                paused.set_result(self._transport.get_write_buffer_size())

    made = Engine(Pace(0.0, 0.0, 0))
    server = await loop.create_server(lambda: Told(made), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1024)
    body = json.dumps(asked(stream=True, max_tokens=200_000)).encode()
    writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
    async with asyncio.timeout(PATIENCE):
        assert await paused < 1_000_000
        seen, block = b"", b"-"
        while block and b"[DONE]" not in seen:
            block = await reader.read(2**20)
            seen = seen[-100:] + block
        assert b"[DONE]" in seen
    writer.close()
    server.close()


async def test_requests_of_one_connection_are_answered_in_order_however_many_come_at_once() -> None:
    made = Engine(Pace(0.0, 0.0, 0))
    server = await asyncio.get_running_loop().create_server(lambda: Connection(made), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    body = json.dumps(asked()).encode()
    chat = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
    health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    writer.write((chat + health * 50) * 20 + last)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 OK") == 20 * 51
    assert answer.count(b"chat.completion") == 20
    assert answer.rpartition(b"HTTP/1.1 ")[2].startswith(b"404")
    writer.close()
    server.close()


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        ({"content": b"{"}, 400),
        ({"content": b'{"max_tokens": -1, "messages": []}'}, 400),
        ({"content": b'{"max_tokens": 2000000}'}, 400),
        (
            {"content": b'{"messages": [{"content": [{"type": "text", "text": "\\ud83d\\ude00"}]}], "stream": null}'},
            200,
        ),
        ({"content": b"{}"}, 200),
    ],
)
async def test_a_request_that_is_none_gets_an_error_and_the_connection_stays(
    request_of: dict[str, Any], status: int
) -> None:
    async with engine() as client:
        response = await client.post(CHAT, **request_of)
        assert response.status_code == status
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == "mock"
        assert (await client.post("/v1/embeddings", json={})).status_code == 404


async def test_a_request_that_is_too_large_is_refused() -> None:
    async with engine() as client:
        try:
            response = await client.post(CHAT, content=b" " * (LARGEST + 1))
        except httpx.HTTPError:
            return  # closed while it was still sent
        assert response.status_code == 413


async def test_it_is_a_program_that_says_where_it_listens_and_ends_when_asked() -> None:
    command = (sys.executable, "-m", "anywire_experiment.mock_engine", "--itl", "1")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        said = (await process.stdout.readline()).decode().strip()
        async with httpx.AsyncClient(trust_env=False) as client:
            url = said.removeprefix("listens on ")
            assert (await client.post(url + CHAT, json=asked())).json()["usage"]["completion_tokens"] == 5
        process.terminate()
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--itl", "-1"), "expected ms"),
        (("--host", "nowhere.invalid"), ""),
        (("--port", "65536"), "expected a port"),
        (("--slots", "-1"), "expected a number from 0 on"),
    ],
)
async def test_what_it_cannot_do_it_says(arguments: tuple[str, ...], said: str) -> None:
    command = (sys.executable, "-m", "anywire_experiment.mock_engine", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, told = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode
    assert said in told.decode()
    assert "Traceback" not in told.decode()
