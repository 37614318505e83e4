"""The gateway's own HTTP, on a wire that the tests hold: requests however they are cut, bodies and answers of clients
that stop, what is given to aiohttp's server, and the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.gateway_serving import TIMEOUT, says, serving
from tests.integration.test_gateway_same_http import ODD, get, post
from tests.long_form import examples

from anywire.listening.connection_limit import ConnectionLimit
from anywire_gateway_openai.http1 import connection as connection_module
from anywire_gateway_openai.http1 import head as head_module
from anywire_gateway_openai.http1.connection import MAX_AHEAD_BYTES, Connection
from anywire_gateway_openai.wire import write_json

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SERVED = (
    "usual", "streamed", "no body", "no content length", "get with a body", "head", "options", "put", "patch", "query",
    "fragment", "escapes", "two slashes", "dots", "HTTP/1.0 kept", "length with zeros", "length with spaces",
    "the same header twice", "tab in a value", "many headers", "expect", "wrong JSON", "page here", "proxies", "key",
)  # fmt: skip
"""Of the odd requests those that are served here."""


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reads = True
        self.connection: Connection | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.lose)

    abort = close

    def lose(self) -> None:
        self.closed = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.connection_lost(None)

    def is_reading(self) -> bool:
        return self.reads

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Owner:
    """Has one connection, and takes what it hands over."""

    def __init__(self, handler: Handler, idle_timeout: float = 60.0) -> None:
        self.handler, self.idle_timeout = handler, idle_timeout
        self.handed_over: bytes | None = None
        self.lost_connections = 0
        self.wire = Wire()
        self.connection = Connection(self, asyncio.get_running_loop())
        self.wire.connection = self.connection
        self.connection.connection_made(self.wire)

    def opened(self, connection: Connection, transport: asyncio.Transport) -> None: ...

    def lost(self, connection: Connection) -> None:
        self.lost_connections += 1

    def hand_over(self, connection: Connection, transport: asyncio.Transport, data: bytes) -> None:
        self.handed_over = data
        self.wire.connection = None


async def turns(count: int = 12) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def reading_all(request: web.BaseRequest) -> bytes:
    body = b""
    while not request.content.at_eof():
        body += await request.content.readany()
    return body


class Echo:
    """Answers with what it has got; ``seen`` keeps it."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await reading_all(request)
        self.seen.append((request.method, request.path, dict(request.query), request.version, body))
        return await write_json(request, str(len(self.seen)).encode(), ())


_PATHS = st.sampled_from(["/", "/v1/models", "/v1/a%20b", "/v1/x?a=1&b=%2f", "/v1/x#y"])
_BODIES = st.one_of(st.just(b""), st.binary(max_size=30), st.just(b"\r\n\r\n"), st.just(b"x" * 3000))
_REQUESTS = st.lists(
    st.tuples(_PATHS, _BODIES, st.sampled_from(["", "Cookie: a", "x-anywire-session:  s \t"])), min_size=1, max_size=4
)


@given(_REQUESTS, st.lists(st.integers(0, 400), max_size=8))
@settings(max_examples=examples(60), deadline=None)
def test_however_requests_are_cut_they_are_the_same(requests: list[tuple[str, bytes, str]], cuts: list[int]) -> None:
    async def run(pieces: list[bytes]) -> tuple[list[tuple[Any, ...]], int]:
        echo = Echo()
        owner = Owner(echo)
        for piece in pieces:
            if piece:
                owner.connection.data_received(piece)
            await turns(2)
        for _ in requests:
            await turns()
        owner.wire.lose()
        assert owner.handed_over is None
        return echo.seen, owner.wire.written.count(b"HTTP/1.1 200 OK")

    data = b"".join(post(*filter(None, [header]), body=body, path=path) for path, body, header in requests)
    at = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    cut = [data[begin:end] for begin, end in pairwise(at)]
    seen, answered = asyncio.run(run(cut))
    assert [each[4] for each in seen] == [body for _, body, _ in requests]
    assert (seen, answered) == asyncio.run(run([data]))
    assert answered == len(requests)


@pytest.mark.parametrize("name", ODD)
async def test_what_is_odd_is_handed_over_whole(name: str) -> None:
    """However it comes, and when the request before it has been answered: a usual one, one of another length, and the
    same one where that is served."""
    same = [(ODD[name], 1)] if name in SERVED else []
    for before, pieces in ((b"", 1), (b"", 3), (post(), 1), (post(body=b"x" * 123), 1), *same):
        echo = Echo()
        owner = Owner(echo)
        data = before + ODD[name]
        size = -(-len(data) // pieces)
        for at in range(0, len(data), size):
            owner.connection.data_received(data[at : at + size])
            if owner.handed_over is not None:
                owner.handed_over += data[at + size :]  # it comes to whom it was handed over to
                break
            await turns()
        await turns()
        answered = owner.wire.written.count(b" 200 OK")
        if owner.handed_over is None:
            assert answered == len(echo.seen) == (2 if before else 1), name
        else:
            assert owner.handed_over == ODD[name], name
            assert answered == (1 if before else 0), name
        if name in SERVED:
            assert owner.handed_over is None, name
        owner.wire.lose()


async def test_a_body_is_read_no_faster_than_its_handler_takes_it() -> None:
    go_on = asyncio.Event()
    got: list[int] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        got.append(len(await reading_all(request)))
        return await write_json(request, b"{}", ())

    owner = Owner(handler)
    size, sent = 1_000_000, 0
    owner.connection.data_received(post(f"Content-Length: {size}", body=b""))
    while owner.wire.is_reading():
        owner.connection.data_received(b"x" * 10_000)
        sent += 10_000
    assert sent < 200_000
    go_on.set()
    while sent < size:
        await turns(3)
        assert owner.wire.is_reading()
        owner.connection.data_received(b"x" * 10_000)
        sent += 10_000
    await turns()
    assert got == [size]
    assert owner.wire.written.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("body", [10, 200_000])
async def test_what_comes_ahead_is_bounded_and_answered_in_order(body: int) -> None:
    go_on = asyncio.Event()
    got: list[int] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        got.append(len(await reading_all(request)))
        return await write_json(request, b"{}", ())

    owner = Owner(handler)
    data = b"".join(post(f"x-number: {number}", body=b"y" * body) for number in range(10 if body > 1000 else 3000))
    at = 0
    while at < len(data):
        if owner.wire.is_reading():
            owner.connection.data_received(data[at : at + 20_000])
            at += 20_000
        elif not go_on.is_set():
            assert at < MAX_AHEAD_BYTES + 200_000 + 2 * 20_000
            go_on.set()
        await turns(3)
    while len(got) < (10 if body > 1000 else 3000):
        await turns()
    assert set(got) == {body}
    assert owner.wire.is_reading()


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    for sent in (post(), post("Content-Length: 1000", body=b"{"), post() + post()):
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def handler(
            request: web.BaseRequest, began: asyncio.Event = began, cancelled: asyncio.Event = cancelled
        ) -> web.StreamResponse:
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            raise AssertionError

        owner = Owner(handler)
        owner.connection.data_received(sent)
        await asyncio.wait_for(began.wait(), TIMEOUT)
        owner.wire.lose()
        await asyncio.wait_for(cancelled.wait(), TIMEOUT)
        assert owner.lost_connections == 1
        assert owner.wire.written == b""


async def test_a_body_that_nobody_wants_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return await write_json(request, b"{}", ())

    owner = Owner(handler)
    whole = post(body=b"x" * 300_000)
    for at in range(0, len(whole), 50_000):
        owner.connection.data_received(whole[at : at + 50_000])
        await turns()
        assert owner.wire.is_reading()
    owner.connection.data_received(post())
    await turns()
    assert owner.wire.written.count(b" 200 OK") == 2
    # One that never comes ends the connection.
    monkeypatch.setattr(connection_module, "LINGER_S", 0.01)
    owner.connection.data_received(post("Content-Length: 1000", body=b""))
    async with asyncio.timeout(TIMEOUT):
        while owner.wire.connection is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert owner.wire.written.count(b" 200 OK") == 3


async def test_at_the_end_what_has_begun_is_answered() -> None:
    echo = Echo()
    owner = Owner(echo)
    sent = post(body=b"x" * 1000) + post()
    owner.connection.data_received(sent[:500])
    await turns()
    owner.connection.finish()
    assert not owner.wire.is_closing()
    owner.connection.data_received(sent[500:])
    await turns()
    assert [len(each[4]) for each in echo.seen] == [1000]
    assert owner.wire.is_closing()
    idle = Owner(echo)
    idle.connection.data_received(post()[:30])
    idle.connection.finish()
    assert idle.wire.is_closing()


async def test_a_handler_that_fails_is_answered_and_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        raise RuntimeError("secret")

    owner = Owner(handler)
    owner.connection.data_received(post() + post())
    await turns()
    assert owner.wire.written.startswith(b"HTTP/1.1 500 ")
    assert owner.wire.written.count(b"HTTP/1.1") == 1
    assert b"secret" not in owner.wire.written
    assert "secret" in caplog.text
    assert owner.wire.is_closing()


async def test_half_of_an_answer_gets_no_other_answer_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("secret")

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=pieces())

    owner = Owner(handler)
    owner.connection.data_received(post() + post())
    await turns()
    assert owner.wire.written.startswith(b"HTTP/1.1 200 ")
    assert owner.wire.written.endswith(b"\r\n4\r\nhalf\r\n")
    assert owner.wire.is_closing()
    assert "secret" in caplog.text


async def test_no_request_sees_what_one_before_it_has_set() -> None:
    """Neither those ahead nor what is handed over."""
    mark: ContextVar[str] = ContextVar("mark", default="")
    seen: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(mark.get())
        mark.set("set")
        await reading_all(request)
        return await write_json(request, b"{}", ())

    class Sees(Owner):
        def hand_over(self, connection: Connection, transport: asyncio.Transport, data: bytes) -> None:
            super().hand_over(connection, transport, data)
            seen.append(mark.get())

    owner = Sees(handler)
    owner.connection.data_received(post() + post() + ODD["chunked"])
    await turns()
    assert owner.handed_over == ODD["chunked"]
    assert seen == [""] * 3


async def test_names_of_headers_are_remembered_in_bounds() -> None:
    owner = Owner(Echo())
    for number in range(60):
        owner.connection.data_received(post(*(f"x-{number}-{each}: y" for each in range(50))))
        await turns()
    assert owner.wire.written.count(b" 200 OK") == 60
    assert len(head_module._names) <= 512
    owner.wire.lose()


async def test_a_connection_that_is_handed_over_counts_once_and_goes_on() -> None:
    """Requests before it, a chunked one, others behind it; and a limit that knows the connection still."""
    limits: list[ConnectionLimit] = []
    async with serving(says("a")) as served:
        assert served.gateway._routes is not None
        limits.append(served.gateway._routes._limit)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        for sent in (get("/v1/models"), ODD["chunked"], get("/v1/models"), post()):
            writer.write(sent)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
            assert head.startswith(b"HTTP/1.1 200 ")
            length = next(each for each in head.lower().split(b"\r\n") if each.startswith(b"content-length: "))
            await reader.readexactly(int(length.partition(b" ")[2]))
            assert len(limits[0]._open) == 1
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(TIMEOUT):
            while limits[0]._open:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert not limits[0]._by_handler


async def test_a_websocket_behind_other_requests() -> None:
    async with serving(says("a")) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(get("/v1/health"))
        assert (await asyncio.wait_for(reader.readuntil(b"}"), TIMEOUT)).startswith(b"HTTP/1.1 200 ")
        writer.write(
            get(
                "/v1/ws/chat",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: " + "A" * 22 + "==",
            )
        )
        rest = await asyncio.wait_for(reader.readuntil(b"Sec-WebSocket-Accept"), TIMEOUT)
        assert b" 101 Switching Protocols" in rest
        writer.transport.abort()


async def test_closing_cuts_off_what_does_not_end() -> None:
    async with serving(says("a"), shutdown_grace=0.05) as served:
        connections = []
        for sent in (post()[:30], post("Content-Length: 1000", body=b"{"), get("/v1/health"), ODD["chunked"]):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(sent)
            connections.append((reader, writer))
        for reader, _ in connections[2:]:
            await asyncio.wait_for(reader.readuntil(b"}"), TIMEOUT)
        await served.gateway.close()
        for reader, writer in connections:
            with contextlib.suppress(ConnectionError):  # cut off
                await asyncio.wait_for(reader.read(), TIMEOUT)
            writer.close()
        assert served.gateway._server is not None
        assert not served.gateway._server.connections
