"""What others may send to the addresses of the HTTP transport, and that it costs an answer and a line in the log."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from tests.integration.sockets import option_of_connections
from tests.integration.wire_bench import Bench, echo, log_of, request
from tests.integration.wire_faults import Log

import anywire.listening.connection_limit
import anywire_http.registration
import anywire_http.server
from anywire.large_body import LARGE_BYTES
from anywire.messages import AgentInfo, Command, HubInfo
from anywire.protocol import PROTOCOL as VERSION
from anywire.testing.recorder import PATIENCE
from anywire_http.wire import (
    LINK_HEADER,
    ORDER_HEADER,
    PROTOCOL,
    HubHello,
    Registration,
    decode_task,
    encode,
    encode_task,
)
from reserved import free_ports

JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack, "http")


@pytest.fixture
def log() -> Iterator[Log]:
    with log_of("anywire_http") as log:
        yield log


class Pair:
    """A hub and an agent that are linked, and somebody who sends them requests."""

    def __init__(self, bench: Bench, client: aiohttp.ClientSession) -> None:
        self.bench, self.client = bench, client
        self.port, self.own = free_ports(2)

    async def open(self) -> None:
        self.hub, self.sink = await self.bench.hub(agent_addresses=self.at(self.port))
        _, self.agent, _ = await self.bench.port(
            on_task=echo, agent_addresses=self.at(self.port), agent_listen=self.at(self.own)
        )
        await self.sink.event("joined", "a")

    def at(self, port: int, path: str = "") -> str:
        return f"http://127.0.0.1:{port}{path}"

    async def send(self, url: str, data: Any, method: str = "POST", **headers: str) -> tuple[int, str]:
        async with self.client.request(method, url, data=data, headers=JSON | headers) as response:
            answer = await response.json()
            return response.status, answer.get("error", "")

    async def goes_on(self) -> None:
        """The link is there, and nobody else has joined."""
        self.hub.send("a", request("proof"))
        await self.sink.final("proof")
        assert [event[:2] for event in self.sink.events if event[0] in ("joined", "lost")] == [("joined", "a")]
        assert not self.agent.named("hub_lost")
        assert not self.agent.named("command")
        assert not self.agent.named("cancel")
        assert len(self.agent.named("hub_joined")) == 1


@pytest_asyncio.fixture
async def pair(bench: Bench) -> AsyncIterator[Pair]:
    async with aiohttp.ClientSession() as client:
        pair = Pair(bench, client)
        await pair.open()
        yield pair


REQUESTS = {
    "register": ("hub", "POST", "/agents/register"),
    "look": ("agent", "GET", "/agent"),
    "link": ("agent", "POST", "/link"),
    "task": ("agent", "POST", "/tasks"),
    "command": ("agent", "POST", "/commands"),
    "control": ("agent", "POST", "/control"),
}


@pytest.mark.parametrize(("end", "method", "path"), REQUESTS.values(), ids=REQUESTS)
async def test_web_page_cannot_use_any_address(pair: Pair, log: Log, end: str, method: str, path: str) -> None:
    bodies = {
        "/agents/register": encode(
            Registration(PROTOCOL, "agent", pair.at(pair.own), AgentInfo("page", 1, protocol=VERSION))
        ),
        "/link": encode(HubHello(PROTOCOL, "agent", HubInfo("page", 1, protocol=VERSION))),
        "/control": b'{"cancel":{"hub_id":"h","task_id":"t","attempt":1}}',
        "/commands": encode(Command("h", "c", "drain")),
    }
    url = pair.at(pair.port if end == "hub" else pair.own, path)
    for header in ({"Origin": "https://page.example"}, {"Sec-Fetch-Site": "cross-site"}, {"sec-fetch-mode": "no-cors"}):
        status, error = await pair.send(url, bodies.get(path, b""), method, **header)
        assert (status, "not for web pages" in error) == (403, True)
    if method == "POST":
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
            headers = {"Content-Type": kind}
            async with pair.client.post(url, data=bodies.get(path, b""), headers=headers) as response:
                assert response.status == 415
                assert "application/json" in (await response.json())["error"]
    await log.says("refused a request from 127.0.0.1")
    await pair.goes_on()


@pytest.mark.parametrize("lease_ms", [0, -1, 2**31, 2**63, 10**30])
async def test_impossible_lease_is_answered_with_what_would_do(pair: Pair, lease_ms: int) -> None:
    hub = HubInfo("x", 1, lease_ms=lease_ms, protocol=VERSION)
    agent = AgentInfo("x", 1, lease_ms=lease_ms, protocol=VERSION)
    hello = encode(HubHello(PROTOCOL, "agent", hub))
    status, error = await pair.send(pair.at(pair.own, "/link"), hello, **{LINK_HEADER: "x"})
    assert status == 400
    assert "lease_ms" in error
    registration = encode(Registration(PROTOCOL, "agent", pair.at(pair.own), agent))
    status, error = await pair.send(pair.at(pair.port, "/agents/register"), registration)
    assert status == 400
    await pair.goes_on()


NAME = "x\x1b[2J\n"
ODD_NAMES: dict[str, dict[str, Any]] = {
    "control characters": {"id": NAME},
    "no name": {"id": ""},
    "long name": {"id": "x" * 2000},
    "huge incarnation": {"incarnation": 10**400},
    "negative incarnation": {"incarnation": -1},
    "huge lease": {"lease_ms": 10**400},
    "text for a number": {"incarnation": NAME},
}


@pytest.mark.parametrize("wrong", ODD_NAMES.values(), ids=ODD_NAMES)
async def test_hello_that_nobody_can_mean_is_refused_without_a_trace(
    pair: Pair, log: Log, wrong: dict[str, Any]
) -> None:
    said = {"id": "x", "incarnation": 1, "lease_ms": 1000, "protocol": VERSION} | wrong
    for of, port, path in (("hub_id", pair.own, "/link"), ("agent_id", pair.port, "/agents/register")):
        info = {of if key == "id" else key: value for key, value in said.items()}
        hello = {"protocol": PROTOCOL, "plane": "agent", "url": f"http://127.0.0.1:{pair.own}/\n", "info": info}
        data = json.dumps(hello).encode()
        status, error = await pair.send(pair.at(port, path), data, **{LINK_HEADER: "x"})
        assert status == 400
        assert error
    assert not log.tracebacks
    assert all(event[0].isprintable() and len(event[0]) < 1000 for event in log.events)
    await pair.goes_on()


@pytest.mark.parametrize(
    "body",
    [b"[" * 500_000, b"[" + b"[]," * 2_000_000 + b"[]]", b'{"hub_id":' * 50_000, b"\xff" * 1000, b""],
    ids=["deep", "two million lists", "deep objects", "no text", "nothing"],
)
async def test_body_that_is_no_message_is_told_and_disturbs_nobody(pair: Pair, body: bytes) -> None:
    for port, path in (
        (pair.port, "/agents/register"),
        (pair.own, "/link"),
        (pair.own, "/tasks"),
        (pair.own, "/commands"),
    ):
        status, error = await pair.send(pair.at(port, path), io.BytesIO(body), **{ORDER_HEADER: "0"})
        assert status in (400, 410, 413)
        assert error
    await pair.goes_on()


async def test_a_body_that_nobody_wants_and_that_cannot_be_read_leaves_no_traceback(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.own)
    head = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
    assert b" 404 " in await reader.readline()
    writer.write(b"no chunk\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await reader.read()
    writer.close()
    assert not [record for record in caplog.records if record.exc_info]
    await pair.goes_on()


async def test_a_large_task_has_its_body_behind_the_json() -> None:
    body = "é" * (LARGE_BYTES + 1)
    parts = encode_task(request("t", body=body), LARGE_BYTES)
    assert len(parts[0]) < 1000
    assert parts[1].decode() == body
    assert await decode_task(b"".join(parts), len(parts[1])) == request("t", body=body)
    assert encode_task(request("t", body="x"), 1000) == (encode(request("t", body="x")),)


@pytest.mark.parametrize("length", [0, 5, 1000])
async def test_a_task_whose_body_has_no_such_length_is_refused(length: int) -> None:
    with pytest.raises(msgspec.MsgspecError):
        await decode_task(b"12345" if length == 5 else encode(request("t")) + b"{}", length)


@pytest.mark.parametrize("order", ["-1", "x", "9" * 5000, "²", ""])
async def test_task_without_a_place_in_the_order_is_refused(pair: Pair, order: str) -> None:
    headers = {LINK_HEADER: "x", ORDER_HEADER: order}
    assert (await pair.send(pair.at(pair.own, "/tasks"), encode(request("t")), **headers))[0] == 410
    await pair.goes_on()


async def test_each_cause_of_a_refusal_is_one_line_in_the_log(pair: Pair, log: Log) -> None:
    wrong = encode(Registration("anywire-http/0", "agent", pair.at(pair.own), AgentInfo("x", 1)))
    for _ in range(5):
        assert (await pair.send(pair.at(pair.port, "/agents/register"), wrong))[0] == 409
    assert len([event for event in log.events if "is not registered" in event[0]]) == 1


async def test_attempt_to_register_that_fails_unexpectedly_is_logged_and_repeated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    failures = [RuntimeError("nobody thought of this")]

    def fail_once(message: Any) -> bytes:
        if failures:
            raise failures.pop()
        return encode(message)

    monkeypatch.setattr(anywire_http.registration, "encode", fail_once)
    _, sink = await bench.hub(agent_addresses=f"http://127.0.0.1:{port}")
    with log_of("anywire.transport_tools") as log:
        await bench.port(agent_addresses=f"http://127.0.0.1:{port}")
        await sink.event("joined", "a")
    assert any("it will be tried again" in event[0] for event in log.events)


async def test_connections_do_not_wait_to_fill_their_packets(pair: Pair) -> None:
    values = option_of_connections(pair.own, socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert values
    assert all(values)


PROBES = {
    "nobody": b"",
    "something else": b"HTTP/1.1 418 the secret of the inner network\r\nContent-Length: 6\r\n\r\nsecret",
    "no HTTP": b"220 mail.secret ESMTP\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://secret.example/\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", PROBES.values(), ids=PROBES)
async def test_a_registration_tells_nothing_of_what_is_at_its_url(pair: Pair, log: Log, answer: bytes) -> None:
    asked = []

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(answer)
        await writer.drain()
        writer.close()

    (there,) = free_ports(1)
    server = await asyncio.start_server(answered, "127.0.0.1", there) if answer else None
    registration = Registration(PROTOCOL, "agent", pair.at(there), AgentInfo("x", 1, protocol=VERSION))
    status, error = await pair.send(pair.at(pair.port, "/agents/register"), encode(registration))
    if server is not None:
        server.close()
    assert (status, error) == (
        502,
        f"hub h could not link it at {pair.at(there)}: this agent cannot be reached there. The hub's log says why",
    )
    assert len(asked) == (1 if answer else 0)
    await log.says("an agent at 127.0.0.1 is not registered: hub h could not link it")
    await pair.goes_on()


# Connections that say nothing, or half of something


HALVES = {
    "nothing": b"",
    "half a head": b"POST /agents/register HTTP/1.1\r\nHost: x\r\nContent-",
    "half a line": b"GET /age",
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
async def test_a_connection_with_half_of_a_head_is_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, half: bytes
) -> None:
    monkeypatch.setattr(anywire_http.server, "IDLE_S", 0.3)
    async with aiohttp.ClientSession() as client:
        pair = Pair(bench, client)
        await pair.open()
        for port in (pair.port, pair.own):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(half)
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            writer.close()
        await pair.goes_on()


async def test_a_body_that_does_not_come_is_answered_and_its_connection_closed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_http.server, "BODY_S", 0.1)
    for port, path in ((pair.port, "/agents/register"), (pair.own, "/link")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"has not arrived within" in answer
        writer.close()
    await pair.goes_on()


async def test_links_of_many_hubs_leave_room_for_the_tasks_of_one(
    bench: Bench, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire.listening.connection_limit, "descriptors", lambda: 48)
    async with aiohttp.ClientSession() as client, AsyncExitStack() as open_links:
        pair = Pair(bench, client)
        await pair.open()
        statuses = []
        for number in range(20):
            hello = encode(HubHello(PROTOCOL, "agent", HubInfo(f"x{number}", 1, protocol=VERSION)))
            headers = JSON | {LINK_HEADER: f"{number}"}
            asking = client.post(pair.at(pair.own, "/link"), data=hello, headers=headers)
            statuses.append((await open_links.enter_async_context(asking)).status)
        assert statuses == [200] * 7 + [503] * 13
        assert log.count("8 hubs are linked already") == 1
        for number in range(10):
            pair.hub.send("a", request(f"t{number}"))
            await pair.sink.final(f"t{number}")
        assert not pair.sink.named("lost")


async def test_many_half_requests_leave_room_for_others(
    bench: Bench, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire.listening.connection_limit, "descriptors", lambda: 40)
    body = b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
    async with aiohttp.ClientSession() as client:
        pair = Pair(bench, client)
        await pair.open()
        for port, path in ((pair.port, b"/agents/register"), (pair.own, b"/link")):
            halves = []
            for number in range(100):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /agent HTTP/1.1\r\nHost" if number % 2 else b"POST " + path + body)
                halves.append((reader, writer))
            for reader, _ in halves[:60]:
                assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            async with client.get(pair.at(port, "/agent")) as response:
                assert response.status == (404 if port == pair.port else 200)
            for _, writer in halves:
                writer.close()
        await pair.goes_on()
