"""Random and mutated requests over HTTP and WebSocket: no answer blames the server, every error has OpenAI's form, and
nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from tests.integration.fuzzed_requests import MAX_BODY_BYTES, Requests, Sent
from tests.integration.gateway_serving import Raw, Served, serving
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.errors import AnywireError
from anywire.printable import printable

REQUESTS = 20_000 if SOAK else 2_000
AT_ONCE = 16
LONGEST = 600 if SOAK else 230
GROWTH = 3000
"""Objects of Python that may be there more after the second half than after the first: caches that fill up."""


def _constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def _json(data: bytes) -> Any:
    return json.loads(data, parse_constant=_constant)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def answers(data: bytes) -> Iterator[Answer]:
    """The answers on a connection; one that is cut off at its end is left out."""
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if status == 100:
            data = rest
            continue
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size, found, rest = rest.partition(b"\r\n")
                if not found:
                    return
                length = int(size, 16)
                if len(rest) < length + 2:
                    return
                body, rest = body + rest[:length], rest[length + 2 :]
                if not length:
                    break
        else:
            length = int(headers.get("content-length", len(rest)))
            if len(rest) < length:
                return
            body, rest = rest[:length], rest[length:]
        yield Answer(status, headers, body)
        data = rest


def check_error(body: Any) -> None:
    error = body["error"]
    assert error.keys() >= {"message", "type", "param", "code"}, error
    assert isinstance(error["message"], str), error
    assert error["message"], error
    for name in ("message", "type", "param", "code"):
        assert error[name] is None or error[name] == printable(error[name]), f"raw characters of a client: {error!r}"


def check_answer(answer: Answer) -> None:
    status, headers, body = answer
    assert status < 500, f"{status} {body[:500]!r}"
    if headers.get("content-type", "").startswith("application/json") and body:
        content = _json(body)
        if status >= 400:
            check_error(content)
    elif headers.get("content-type", "").startswith("text/event-stream"):
        for event in body.split(b"\n\n"):
            check_event(event.removeprefix(b"data: ")) if event.startswith(b"data: ") else None
    else:
        assert status < 400, f"{status} {headers} {body[:200]!r}"


def check_event(data: bytes) -> None:
    if data == b"[DONE]":
        return
    content = _json(data)
    if "error" in content:
        check_error(content)
        assert content["error"]["type"] != "server_error", content


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Code and content of the frames that a server sends."""
    while len(data) >= 2:
        size, at = data[1] & 127, 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        if len(data) < at + size:
            return
        yield data[0] & 15, data[at : at + size]
        data = data[at + size :]


async def exchange(port: int, data: bytes) -> bytes:
    """Everything that the server says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(65536):
                got += piece
    except ConnectionError:
        pass  # it was closed before all had been read
    except TimeoutError:
        raise AssertionError(f"no end after {bytes(got)[:2000]!r} to {data[:3000]!r}") from None
    finally:
        writer.transport.abort()
    return bytes(got)


async def over_http(port: int, sent: Sent) -> int:
    got = await exchange(port, sent.data)
    try:
        for answer in answers(got):
            check_answer(answer)
    except (AssertionError, ValueError, KeyError) as error:
        raise AssertionError(f"{error}\nsent {sent.data[:3000]!r}\ngot {got[:3000]!r}") from error
    return sent.requests


async def over_websocket(port: int, requests: Requests) -> int:
    sent = requests.handshake() + requests.frames()
    got = await exchange(port, sent)
    head, _, rest = got.partition(b"\r\n\r\n")
    try:
        if b" 101 " not in head[:20]:
            for answer in answers(got):
                check_answer(answer)
            return 1
        for code, content in frames(rest):
            if code == 1:
                check_event(content)
    except (AssertionError, ValueError, KeyError) as error:
        raise AssertionError(f"{error}\nsent {sent[:3000]!r}\ngot {got[:3000]!r}") from error
    return 2


async def fuzz(port: int, seed: int, count: int) -> None:
    """So many requests, from `AT_ONCE` connections at a time; one in twenty goes away without waiting."""
    left = count

    async def work(number: int) -> None:
        nonlocal left
        requests = Requests(seed * 1000 + number)
        while left > 0:
            kind = requests.rng.random()
            if kind < 0.05:
                left -= await vanish(port, requests)
            elif kind < 0.2:
                left -= await over_websocket(port, requests)
            else:
                left -= await over_http(port, requests.connection())

    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(work(number))


async def vanish(port: int, requests: Requests) -> int:
    """Send a request, or a part of one, and go away."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    data = requests.request()
    writer.write(data[: requests.rng.randrange(1, len(data) + 1)])
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    for _ in range(requests.rng.randrange(4)):
        await asyncio.sleep(0)
    writer.transport.abort()
    return 1


class Bystander:
    """A client whose streams go on beside all this."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.streams = 0
        self._ended = asyncio.Event()
        self._expected = ""

    async def run(self) -> None:
        messages = [{"role": "user", "content": "a bystander's"}]
        body = {"model": "m", "messages": messages, "stream": True, "max_tokens": 30}
        connection = await self._served.raw(body)
        try:
            await self._read(connection, body)
        finally:
            await connection.close()

    async def _read(self, connection: Raw, body: dict[str, Any]) -> None:
        while True:
            lines = (await connection.reader.readuntil(b"data: [DONE]\n\n")).split(b"\r\n")
            events = [json.loads(line[6:]) for text in lines for line in text.split(b"\n") if line[:7] == b"data: {"]
            text = "".join([each["delta"].get("content", "") for event in events for each in event["choices"]])
            self._expected = self._expected or text
            assert text == self._expected
            assert len(text.split()) == 30
            self.streams += 1
            self._ended.set()
            connection.post(body)

    async def another_stream(self) -> None:
        """Wait for the end of one that is under way now."""
        self._ended.clear()
        await self._ended.wait()


@asynccontextmanager
async def bystanding(served: Served) -> AsyncIterator[Bystander]:
    """Ends at once when one of its streams is not as it should be."""
    bystander = Bystander(served)
    async with asyncio.TaskGroup() as group:
        standing = group.create_task(bystander.run())
        yield bystander
        standing.cancel()


async def idle(served: Served) -> None:
    """Wait until nothing runs any more."""
    while served.orchestrator.waiting or any(agent.in_flight for agent in served.orchestrator.registry.agents()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    for record in caplog.records:
        text = record.getMessage()
        assert not record.exc_info, f"{text} {record.exc_info}"
        assert record.levelno < logging.ERROR, text
        assert printable(text) == text
    caplog.clear()


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.timeout(600 if SOAK else 240)
async def test_whatever_is_sent_is_answered_as_openai_would(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    # In the long form another seed at each run, which a failure names.
    seed = random.randrange(10**6) if SOAK else 13
    engine = SyntheticEngine(SyntheticConfig(models=["m"], length=30))
    async with serving(engine, timeout=LONGEST, max_body_bytes=MAX_BODY_BYTES, body_timeout=PATIENCE) as served:
        async with bystanding(served) as bystander:
            await fuzz(served.port, seed, REQUESTS // 10)
            check_log(caplog)
            caplog.set_level(logging.WARNING)  # a line per request costs more than the request
            counts = []
            for half in (1, 2):
                await fuzz(served.port, seed + half, REQUESTS * 9 // 20)
                await bystander.another_stream()
                check_log(caplog)
                counts.append(objects())
        await idle(served)
        assert counts[1] - counts[0] < GROWTH, f"seed {seed}: objects grow: {counts}"
        assert bystander.streams >= 2


def test_an_error_has_no_raw_characters_of_a_client() -> None:
    from anywire_gateway_openai.errors import error_json

    error = AnywireError("no \x1b]0;such\x07 thing\r\n", param="a\x00b", detail_code="c\x7f")
    check_error(json.loads(error_json(error)))
