"""The HTTP client of the engine ``openai`` against servers that speak the protocol in odd ways, or break it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import itertools
import socket
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest
from anywire.known_head import KnownHead
from anywire.testing.patience import PATIENCE
from anywire_engine_openai.connection_errors import ConnectionFailed
from anywire_engine_openai.http import addresses, codings, connection
from anywire_engine_openai.http.addresses import read_target
from anywire_engine_openai.http.answer import Answer
from anywire_engine_openai.http.client import Client, header_lines
from anywire_engine_openai.http.faults import CannotConnect, Closed, Fault, NoHttp, Silence
from anywire_engine_openai.stream import MAX_HELD
from anywire_engine_openai.upstream import Upstream

from .fake_openai_server import DONE, collect, engine_for, event, request, step

pytestmark = pytest.mark.timeout(30)

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 5\r\n\r\nhello"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Raw:
    """A server that answers requests with the bytes it is given, in turns, and notes what it was asked. ``closes``:
    it ends the connection after each."""

    def __init__(self, *answers: bytes, closes: bool = False) -> None:
        self.answers: Sequence[bytes] = answers
        self.closes = closes
        self.asked: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, _, size = head.lower().partition(b"content-length: ")
                body = await reader.readexactly(int(size.partition(b"\r")[0] or 0))
                answer = self.answers[len(self.asked) % len(self.answers)]
                self.asked.append(head + body)
                writer.write(answer)
                await writer.drain()
                if self.closes:
                    return
        self.ended.set()


@contextlib.asynccontextmanager
async def listening(serve: Serve, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[int]:
    listener = await asyncio.start_server(serve, host, 0, **options)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def asking(raw: Raw, host: str = "127.0.0.1") -> AsyncIterator[Client]:
    client = Client(connect_timeout=5.0)
    try:
        async with listening(raw.serve, host) as port:
            raw.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            yield client
            client.close()
    finally:
        client.close()


async def body_of(client: Client, url: str, method: str = "GET", content: bytes | None = None) -> bytes:
    """All of an answer, after which it is left."""
    answer = await client.send(method, url, b"", content, limit=PATIENCE)
    pieces = []
    try:
        while piece := await answer.read(PATIENCE):
            pieces.append(piece)
    except BaseException:
        answer.close()
        raise
    answer.leave()
    return b"".join(pieces)


# Answers in all the ways in which HTTP lets them be written

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WAYS = {
    "a length": LENGTH,
    "chunks": CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "chunks with extensions": CHUNKED + b'2;a=b\r\nhe\r\n3;c="d;e"\r\nllo\r\n0;f\r\n\r\n',
    "spaces after sizes": CHUNKED + b"5  \r\nhello\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"5\r\nhello\r\n0\r\nX-Took: 5\r\nX-More: 6\r\n\r\n",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + LENGTH,
    "line feeds alone": OK.replace(b"\r", b"") + b"Content-Length: 5\n\nhello",
    "gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b",
    "gzip of two members": OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b",
    "deflate": OK + b"Content-Encoding: Deflate\r\nContent-Length: %d\r\n\r\n%b",
    "bare deflate": OK + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n%b",
    "an unknown encoding": OK + b"Content-Encoding: none\r\nContent-Length: 5\r\n\r\nhello",
}
ENCODED = {
    "gzip": gzip.compress(b"hello"),
    "gzip of two members": gzip.compress(b"he") + gzip.compress(b"llo"),
    "deflate": zlib.compress(b"hello"),
    "bare deflate": zlib.compress(b"hello")[2:-4],
}
CLOSING = {
    "until the end of the connection": OK + b"\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "HTTP/1.0 with a length": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "a connection that closes": OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    "a coding that is no framing": OK + b"Transfer-Encoding: identity\r\n\r\nhello",
}


def written(way: str) -> bytes:
    answer = WAYS.get(way) or CLOSING[way]
    return answer % (len(ENCODED[way]), ENCODED[way]) if way in ENCODED else answer


@pytest.mark.parametrize("way", WAYS)
async def test_answers_are_read_however_they_are_written_and_the_connection_is_kept(way: str) -> None:
    raw = Raw(written(way))
    async with asking(raw) as client:
        for _ in range(3):
            assert await body_of(client, raw.url, "POST", b"{}") == b"hello"
    assert raw.connections == 1


@pytest.mark.parametrize("way", CLOSING)
async def test_answers_that_end_with_their_connection_are_read(way: str) -> None:
    raw = Raw(written(way), closes=True)
    async with asking(raw) as client:
        for _ in range(3):
            assert await body_of(client, raw.url) == b"hello"
    assert raw.connections == 3


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_has_none(status: int) -> None:
    raw = Raw(b"HTTP/1.1 %d Nothing\r\n\r\n" % status)
    async with asking(raw) as client:
        for _ in range(2):
            assert await body_of(client, raw.url) == b""
    assert raw.connections == 1


async def test_a_connection_that_changes_its_protocol_is_left() -> None:
    raw = Raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\x00\x01\x02")
    async with asking(raw) as client:
        answer = await client.send("GET", raw.url, b"")
        assert (answer.status, await answer.read(0)) == (101, b"")
        answer.leave()
        await raw.ended.wait()


@given(st.sampled_from(sorted(WAYS)), st.lists(st.integers(0, 300), max_size=4), st.booleans())
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_an_answer_is_cut_it_is_the_same(way: str, points: list[int], feeds_at_once: bool) -> None:
    """And cut off before its end it is none."""
    answer = written(way)
    bounds = sorted({0, len(answer), *[point % len(answer) for point in points]})

    async def read() -> tuple[bytes, bool]:
        owner = _Owner()
        made = connection.Connection(owner)
        wire = _Wire()
        made.connection_made(wire)
        asked = asyncio.ensure_future(made.ask(b"GET / HTTP/1.1\r\n\r\n", 0))
        await asyncio.sleep(0)
        for begin, end in itertools.pairwise(bounds):
            made.data_received(answer[begin:end])
            if not feeds_at_once:
                await asyncio.sleep(0)
        head = await asked
        pieces = []
        while piece := await made.read(0):
            pieces.append(piece)
        made.leave()
        made.connection_lost(None)
        assert head.status == 200
        return b"".join(pieces), owner.kept == [made]

    assert asyncio.run(read()) == (ENCODED.get(way, b"hello"), True)


@given(st.sampled_from([*WAYS, *CLOSING]), st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3)), max_size=4))
@settings(max_examples=examples(150), deadline=None)
def test_whatever_a_server_sends_is_an_answer_or_a_fault(way: str, changes: list[tuple[int, bytes]]) -> None:
    """Some bytes are replaced by others, and then the connection ends."""
    sent = bytearray(written(way))
    for place, by in changes:
        sent[place % len(sent) : place % len(sent) + 1] = by or b""
        if not sent:
            break

    async def read() -> None:
        owner, wire = _Owner(), _Wire()
        made = connection.Connection(owner)
        made.connection_made(wire)
        asked = asyncio.ensure_future(made.ask(b"GET / HTTP/1.1\r\n\r\n", PATIENCE))
        await asyncio.sleep(0)
        for each in (bytes(sent[:20]), bytes(sent[20:])):
            made.data_received(each)
            await asyncio.sleep(0)
        made.eof_received()
        made.connection_lost(None)
        with contextlib.suppress(Fault):
            answer = Answer(made, await asked)
            while await answer.read(PATIENCE):
                pass
        made.leave()
        made.close()
        assert owner.ended == [made]
        assert made._waiter is None

    asyncio.run(read())


class _Owner:
    known = KnownHead[connection.Head]()
    """One for all, so that most answers come with a head that is known."""

    def __init__(self) -> None:
        self.kept: list[connection.Connection] = []
        self.ended: list[connection.Connection] = []

    def keep(self, made: connection.Connection) -> None:
        self.kept.append(made)

    def lost(self, made: connection.Connection) -> None:
        self.ended.append(made)


class _Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_over = self.is_paused = False

    def write(self, data: Any) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.is_over

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.is_over = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


# Servers that break the protocol

BROKEN = {
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a length that is none": OK + b"Content-Length: 5x\r\n\r\nhello",
    "a size that is none": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "a size beyond all": CHUNKED + b"fffffffffffffffffff\r\nhello\r\n",
    "a chunk longer than its size": CHUNKED + b"2\r\nhello\r\n0\r\n\r\n",
    "a head of a thousand fields": OK + b"X: y\r\n" * 1000 + b"\r\n",
    "a field of 70,000 bytes": OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    "a name of 9,000 bytes": OK + b"y" * 9000 + b": x\r\n\r\n",
    "a head without end": OK + b"X: " + b"y" * 2_000_000,
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000,
    "an interim answer with a body": b"HTTP/1.1 104 Soon\r\nContent-Length: 5\r\n\r\nhello" + LENGTH,
    "an interim answer in chunks": CHUNKED.replace(b"200 OK", b"104 Soon") + b"5\r\nhello\r\n0\r\n\r\n" + LENGTH,
    "an extension without end": CHUNKED + b"5;" + b"y" * 2_000_000,
    "a trailer without end": CHUNKED + b"5\r\nhello\r\n0\r\nX: " + b"y" * 2_000_000,
    "a thousand trailers": CHUNKED + b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    "encoded otherwise than it says": OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "an encoding that is cut off": OK + b"Content-Encoding: gzip\r\nContent-Length: 15\r\n\r\n" + ENCODED["gzip"][:15],
}


@pytest.mark.parametrize("way", BROKEN)
async def test_what_is_no_http_is_a_fault_and_ends_the_connection(way: str) -> None:
    raw = Raw(BROKEN[way])
    async with asking(raw) as client:
        with pytest.raises(NoHttp):
            await body_of(client, raw.url)
        await raw.ended.wait()


CUT_OFF = [
    LENGTH[:-1],
    LENGTH.replace(b"h:", b"h :")[:-1],
    LENGTH[:20],
    WAYS["chunks"][:-1],
    WAYS["chunks"][:-5],
    CHUNKED,
    OK,
    b"HT",
    b"",
]


@pytest.mark.parametrize("answer", CUT_OFF)
async def test_an_answer_that_is_cut_off_is_a_fault_after_what_has_arrived(answer: bytes) -> None:
    raw = Raw(answer, closes=True)
    async with asking(raw) as client:
        with pytest.raises(Closed) as caught:
            await body_of(client, raw.url)
    assert not caught.value.was_idle, "it was no kept connection"


async def test_a_second_answer_to_one_request_is_not_taken_for_one_to_the_next() -> None:
    poison = OK + b"Content-Length: 6\r\n\r\npoison"
    for answer in (LENGTH + poison, LENGTH + b"\x00garbage"):
        raw = Raw(answer, LENGTH)
        async with asking(raw) as client:
            assert await body_of(client, raw.url) == b"hello"
            assert await body_of(client, raw.url) == b"hello"
        assert raw.connections == 2


async def test_a_connection_on_which_something_comes_unasked_is_ended() -> None:
    go = asyncio.Event()
    raw = Raw(LENGTH)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(LENGTH)
            await go.wait()
            writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            raw.ended.set()

    client = Client(connect_timeout=5)
    async with listening(serve) as port:
        assert await body_of(client, f"http://127.0.0.1:{port}/") == b"hello"
        go.set()
        await raw.ended.wait()
        client.close()


async def test_a_request_that_did_not_all_go_out_is_the_last_of_its_connection() -> None:
    """Its answer came early, and the next one would wait behind the rest of it."""
    over = asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(LENGTH)
            await over.wait()

    client = Client(connect_timeout=5)
    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}/"
        assert await body_of(client, url, "POST", bytes(32 * 1024 * 1024)) == b"hello"
        assert await body_of(client, url, "POST", b"{}") == b"hello"
        assert connections == 2
        client.close()
        over.set()


async def test_a_server_that_ends_while_a_request_goes_out_is_not_waited_for() -> None:
    """It takes no more of it, and closes its half of the connection alone."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write_eof()
            await over.wait()

    client = Client(connect_timeout=5)
    async with listening(serve) as port:
        with pytest.raises(Closed):
            await client.send("POST", f"http://127.0.0.1:{port}/", b"", bytes(32 * 1024 * 1024), limit=PATIENCE)
        client.close()
        over.set()


async def test_what_few_bytes_stand_for_leaves_others_their_turns() -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    bomb = gzip.compress(bytes(16 * 1024 * 1024))
    raw = Raw(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
    async with asking(raw) as client:
        answer = await client.send("GET", raw.url, b"")
        await answer.read(0)
        others = asyncio.ensure_future(take_turns())
        pieces = 0
        while await answer.read(0):
            pieces += 1
        others.cancel()
        answer.leave()
    assert pieces > 100
    assert turns > pieces / 2


async def test_a_body_is_not_taken_faster_than_it_is_read() -> None:
    """Nor is what an encoding makes of it: 32 MiB of nothing."""
    sent = 0
    size = 32 * 1024 * 1024
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
            while sent < size:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        ended.set()

    client = Client(connect_timeout=5)
    async with listening(serve) as port:
        answer = await client.send("GET", f"http://127.0.0.1:{port}/", b"")
        before = -1
        while sent != before:  # until no more goes out
            before = sent
            for _ in range(20):
                await asyncio.sleep(0.001)
        assert sent < size / 4
        assert len(await answer.read(0)) <= 4 * connection.MAX_UNREAD_BYTES
        got = 0
        while piece := await answer.read(0):
            got += len(piece)
        assert sent == size
        answer.leave()
        await ended.wait()
    client.close()
    bomb = gzip.compress(bytes(size))
    raw = Raw(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
    async with asking(raw) as client:
        answer = await client.send("GET", raw.url, b"")
        total = 0
        while piece := await answer.read(0):
            assert len(piece) <= codings.OUT_STEP
            total += len(piece)
        assert total == size
        answer.leave()


# All that encodes


@pytest.mark.parametrize("name", sorted(codings.decoders()))
@pytest.mark.parametrize("size", [0, 5, codings.OUT_STEP, 3 * codings.OUT_STEP + 7])
def test_each_encoding_that_is_asked_for_is_undone(name: str, size: int) -> None:
    content = (b"all work and no play " * (size // 21 + 1))[:size]
    encoded = _encoded(name, content)
    for step_size in (1, 100, len(encoded) + 1):
        decoder = codings.decoders()[name]()
        got = b""
        for at in range(0, len(encoded), step_size):
            decoder.give(encoded[at : at + step_size])
            while piece := decoder.take():
                got += piece
        assert (got, decoder.has_ended) == (content, True)


@pytest.mark.parametrize("name", sorted(codings.decoders()))
async def test_a_body_without_a_byte_is_empty_in_each_encoding(name: str) -> None:
    raw = Raw(OK + b"Content-Encoding: %b\r\nContent-Length: 0\r\n\r\n" % name.encode())
    async with asking(raw) as client:
        for _ in range(2):
            assert await body_of(client, raw.url) == b""
    assert raw.connections == 1


@pytest.mark.parametrize("name", sorted({"gzip", "zstd"} & set(codings.decoders())))
def test_parts_without_content_are_read_up_to_a_number(name: str) -> None:
    """Each costs a decoder, and a server could send them without end."""
    empty = _encoded(name, b"")
    decoder = codings.decoders()[name]()
    for _ in range(3):
        decoder.give(empty * (codings.MAX_EMPTY - 1) + _encoded(name, b"x"))
        assert (decoder.take(), decoder.take()) == (b"x", b"")
    decoder.give(empty * (codings.MAX_EMPTY + 1))
    with pytest.raises(ValueError, match="without content"):
        decoder.take()


def _encoded(name: str, content: bytes) -> bytes:
    if name == "gzip":
        return gzip.compress(content)
    if name == "deflate":
        return zlib.compress(content)
    if name == "br":
        import brotli  # type: ignore[import-not-found, unused-ignore]

        return bytes(brotli.compress(content))
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from backports import zstd
    return bytes(zstd.compress(content))


# What servers see


async def test_a_request_says_what_one_of_aiohttp_said() -> None:
    """But for who asks."""
    raw = Raw(LENGTH)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
    async with asking(raw) as client:
        for path in ("/v1/chat/completions", "/v1/a%20b/ä?x=1&y=ü", ""):
            (await client.send("POST", raw.url + path, header_lines(headers), b"{}")).leave()
            (await client.send("POST", raw.url + path, header_lines(headers), b"{}", anew=True)).leave()
            (await client.send("GET", raw.url + path, header_lines(headers))).leave()
        ours, raw.asked = raw.asked, []
        closing = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(headers=headers) as kept,
            aiohttp.ClientSession(headers=headers, connector=closing) as anew,
        ):
            for path in ("/v1/chat/completions", "/v1/a%20b/ä?x=1&y=ü", ""):
                for session, method in ((kept, "POST"), (anew, "POST"), (kept, "GET")):
                    data = b"{}" if method == "POST" else None
                    async with session.request(method, raw.url + path, data=data) as answer:
                        await answer.read()
    assert [_parts(each) for each in ours] == [_parts(each) for each in raw.asked]


def _parts(asked: bytes) -> tuple[bytes, list[bytes], bytes]:
    """The line, the headers in any order, and the body."""
    head, _, body = asked.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    return line, sorted(each for each in headers if not each.startswith(b"User-Agent: ")), body


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\rb", "a\x00b", "a\r\n"])
def test_no_header_makes_another_one(value: str) -> None:
    with pytest.raises(ValueError, match="control character") as caught:
        header_lines({"X-Key": value, "Y": "z"})
    assert value not in str(caught.value)
    assert header_lines({"X": "ä\tb"}) == "X: ä\tb\r\n".encode()


async def test_a_key_that_is_no_header_is_said_when_it_is_used() -> None:
    with pytest.raises(EngineFailed, match="Authorization"):
        Upstream(api_key="k\n").open("http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://h", ((False, "h", 80), "/", "h", "")),
        ("https://H.example:443/v1", ((True, "h.example", 443), "/v1", "h.example", "")),
        ("http://h:8000/v1?a=b c#d", ((False, "h", 8000), "/v1?a=b%20c", "h:8000", "")),
        ("http://h:0/", ((False, "h", 0), "/", "h:0", "")),
        ("http://[::1]:8000/", ((False, "::1", 8000), "/", "[::1]:8000", "")),
        ("http://u:p%40@h/", ((False, "h", 80), "/", "h", "Basic dTpwQA==")),
        ("http://bücher.example/", ((False, "xn--bcher-kva.example", 80), "/", "xn--bcher-kva.example", "")),
    ],
)
def test_where_a_url_leads(url: str, told: Any) -> None:
    assert read_target(url) == told


@pytest.mark.parametrize("url", ["ftp://h/", "h:8000", "http://", "http://h:x/", "http://h:99999/", "http://[::1/"])
async def test_what_is_no_url_connects_nowhere(url: str) -> None:
    with pytest.raises(CannotConnect):
        await Client(connect_timeout=1).send("GET", url, b"")


async def test_a_user_in_the_url_is_told_the_server() -> None:
    raw = Raw(LENGTH)
    async with asking(raw) as client:
        await body_of(client, raw.url.replace("//", "//me:secret@"))
    assert b"\r\nAuthorization: Basic bWU6c2VjcmV0\r\n" in raw.asked[0]


# Connections


async def test_a_name_and_all_kinds_of_addresses_are_found() -> None:
    raw = Raw(LENGTH)
    async with asking(raw) as client:
        assert await body_of(client, raw.url.replace("127.0.0.1", "localhost")) == b"hello"
    if socket.has_ipv6:
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                return
        raw = Raw(LENGTH)
        async with asking(raw, "::1") as client:
            assert await body_of(client, raw.url) == b"hello"
            assert raw.asked[0].split(b"\r\n")[1] == b"Host: " + raw.url.removeprefix("http://").encode()


async def test_a_name_is_looked_up_once_for_all_that_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    go = asyncio.Event()

    async def look_up(host: str, port: int) -> Any:
        looked.append(host)
        await go.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{each}", port)) for each in (1, 2, 3)]

    monkeypatch.setattr(addresses, "_look_up", look_up)
    known = addresses.Addresses()
    asked = [asyncio.ensure_future(known.of("name.example", 80)) for _ in range(4)]
    await asyncio.sleep(0)
    asked.pop().cancel()
    go.set()
    first = [found[0][4][0] for found in await asyncio.gather(*asked)]
    assert sorted(first) == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert looked == ["name.example"]
    monkeypatch.setattr(addresses, "REMEMBERED", -1.0)
    await known.of("other.example", 80)
    await known.of("other.example", 80)
    assert looked[1:] == ["other.example"] * 2


async def test_a_name_that_was_found_a_moment_ago_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """To one that asks between the answer and its being noted, and whatever else is noted meanwhile."""

    async def look_up(host: str, port: int) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(addresses, "_look_up", look_up)
    known = addresses.Addresses()
    first = asyncio.ensure_future(known.of("name.example", 80))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(known.of("name.example", 80))
    for found in await asyncio.gather(first, second):
        assert found[0][4] == ("127.0.0.1", 80)
    monkeypatch.setattr(addresses, "MAX_NAMES", 1)
    asked = [asyncio.ensure_future(known.of(f"{each}.example", 80)) for each in range(3)]
    assert len(await asyncio.gather(*asked)) == 3


async def test_who_is_cancelled_while_the_client_closes_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(host: str, port: int) -> Any:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(addresses, "_look_up", look_up)
    client = Client(connect_timeout=PATIENCE)
    sending = [asyncio.ensure_future(client.send("GET", "http://name.example", b"")) for _ in range(2)]
    for _ in range(3):
        await asyncio.sleep(0)
    client.close()
    sending[0].cancel()
    told = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(each) for each in told] == [asyncio.CancelledError, CannotConnect]


async def test_a_name_that_is_not_known_and_one_that_cannot_be_one() -> None:
    client = Client(connect_timeout=5)
    for host in ("no-such-name.invalid", "a" * 70 + ".invalid"):
        with pytest.raises(CannotConnect):
            await client.send("GET", f"http://{host}/", b"")
    upstream = Upstream()
    upstream.open("http://no-such-name.invalid/v1")
    with pytest.raises(ConnectionFailed, match="cannot be reached: its name is not known"):
        await upstream.ask("http://no-such-name.invalid/v1/x", {})


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue refuses elsewhere")
async def test_who_does_not_answer_a_connection_is_left_in_time() -> None:
    with socket.socket() as full:
        # Nobody accepts, and the queue is full, so that a further one gets no answer.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        upstream = Upstream(connect_timeout=0.05)
        upstream.open(url)
        with pytest.raises(ConnectionFailed, match="cannot be reached: it did not answer in time") as caught:
            await upstream.ask(url, {})
        assert caught.value.phase == "not_sent"
        upstream = Upstream(connect_timeout=PATIENCE, first_token_timeout=0.05)
        upstream.open(url)
        with pytest.raises(ConnectionFailed, match=r"said nothing for 0\.05 s and had not begun"):
            await anext(upstream.answer(request(), "m1"))
        for each in waiting:
            each.close()


async def test_an_idle_connection_is_ended_in_time_and_a_used_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE", 0.02)
    raw = Raw(LENGTH)
    async with asking(raw) as client:
        assert await body_of(client, raw.url) == b"hello"
        await raw.ended.wait()
        slow = await client.send("GET", raw.url, b"")
        await asyncio.sleep(0.05)
        assert await slow.read(0) == b"hello"
        slow.leave()


async def test_an_answer_that_was_left_is_read_to_its_end_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    go = asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(CHUNKED + b"5\r\nhello\r\n")
                await go.wait()
                writer.write(b"3\r\nend\r\n0\r\n\r\n")

    client = Client(connect_timeout=5)
    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}/"
        answer = await client.send("GET", url, b"")
        assert await answer.read(0) == b"hello"
        answer.leave()
        go.set()
        while not client._idle:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.001)
        answer = await client.send("GET", url, b"")
        assert connections == 1
        assert (await answer.read(0)).startswith(b"hello")
        go.clear()
        monkeypatch.setattr(connection, "TAIL", 0.02)
        answer = await client.send("GET", url, b"")
        assert connections == 2
        answer.leave()
        while len(client._origins) > 1:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.001)
        client.close()
        go.set()


async def test_silence_is_told_by_when_it_fell() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"GET /head" in head:
                for each in OK:  # some of it all the time, but no head
                    if writer.is_closing():
                        return
                    writer.write(bytes([each]))
                    await asyncio.sleep(0.01)
            elif b"GET /body" in head:
                writer.write(CHUNKED)
            else:
                writer.write(CHUNKED + b"5\r\nhello\r\n")
            await reader.read()

    client = Client(connect_timeout=5)
    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(Silence, match=r"0\.03 s") as caught:
            await client.send("GET", f"{url}/head", b"", limit=0.03)
        assert not caught.value.begun
        answer = await client.send("GET", f"{url}/body", b"", limit=PATIENCE)
        with pytest.raises(Silence) as caught:
            await answer.read(0.03)
        assert not caught.value.begun
        answer = await client.send("GET", f"{url}/rest", b"", limit=PATIENCE)
        assert await answer.read(PATIENCE) == b"hello"
        with pytest.raises(Silence) as caught:
            await answer.read(0.03)
        assert caught.value.begun
        client.close()


async def test_a_cancelled_request_ends_its_connection() -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            begun.set()
            await reader.read()
        ended.set()

    client = Client(connect_timeout=5)
    async with listening(serve) as port:
        sending = asyncio.ensure_future(client.send("GET", f"http://127.0.0.1:{port}/", b""))
        await begun.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await ended.wait()
        assert not client._origins
        client.close()


@pytest.mark.parametrize("ends", ["cancelled", "closed"])
async def test_wherever_a_request_over_tls_ends_nothing_of_it_stays(ends: str) -> None:
    import ssl

    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    known = ssl.create_default_context()
    authority.configure_trust(known)
    raw = Raw(LENGTH)
    async with listening(raw.serve, ssl=context) as port:
        for turns in range(40):
            client = Client(connect_timeout=PATIENCE, tls=known)
            sending = asyncio.ensure_future(client.send("GET", f"https://localhost:{port}/", b""))
            for _ in range(turns):
                await asyncio.sleep(0)
            if ends == "cancelled":
                sending.cancel()
            else:
                client.close()
            (told,) = await asyncio.gather(sending, return_exceptions=True)
            assert isinstance(told, Answer | asyncio.CancelledError | Closed | CannotConnect)
            assert ends == "closed" or not isinstance(told, Fault)
            client.close()
            for _ in range(10):  # until all connections have ended
                await asyncio.sleep(0)
            assert not client._origins


async def test_a_request_that_is_cancelled_as_tls_is_there_closes_no_socket_of_a_transport(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the next socket may get its number, and the transport takes what is for that one."""
    import ssl

    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    known = ssl.create_default_context()
    authority.configure_trust(known)
    do_handshake = ssl.SSLObject.do_handshake

    def done(self: ssl.SSLObject) -> None:
        do_handshake(self)
        if not self.server_side:
            sending.cancel()

    monkeypatch.setattr(ssl.SSLObject, "do_handshake", done)
    client = Client(connect_timeout=PATIENCE, tls=known)
    async with listening(Raw(LENGTH).serve, ssl=context) as port:
        sending = asyncio.ensure_future(client.send("GET", f"https://localhost:{port}/", b""))
        with pytest.raises(asyncio.CancelledError):
            await sending
        transports = asyncio.get_running_loop()._transports.values()  # type: ignore[attr-defined]
        assert all(each.is_closing() or each.get_extra_info("socket").fileno() >= 0 for each in transports)
        client.close()


async def test_a_client_that_is_closed_while_it_connects_keeps_nothing() -> None:
    raw = Raw(LENGTH)
    async with asking(raw) as client:
        sending = asyncio.ensure_future(client.send("GET", raw.url, b""))
        await asyncio.sleep(0)
        client.close()
        with pytest.raises(Closed):
            await sending


# Redirects and cookies


def leading_to(url: str) -> bytes:
    return b"HTTP/1.1 307 Elsewhere\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % url.encode()


async def test_a_listing_is_looked_for_where_it_is_said_to_be_and_keys_stay_here() -> None:
    listing = OK + b"Content-Length: 24\r\n\r\n" + b'{"data": [{"id": "m1"}]}'
    there = Raw(listing)
    async with listening(there.serve) as port:
        here = Raw(leading_to("/v2/models"), leading_to(f"http://127.0.0.1:{port}/models"))
        async with listening(here.serve) as first:
            upstream = Upstream(api_key="secret", connect_timeout=PATIENCE, apis=["messages"])
            upstream.open(f"http://127.0.0.1:{first}/v1")
            assert [each.id for each in await upstream.models()] == ["m1"]
            assert [each.partition(b" HTTP")[0] for each in here.asked] == [b"GET /v1/models", b"GET /v2/models"]
            assert all(b"Bearer secret" in each for each in here.asked)
            assert b"secret" not in there.asked[0]
            here.answers = (leading_to("/v1/models"),)
            with pytest.raises(ConnectionFailed, match="more than 10 redirects"):
                await upstream.models()
            here.answers = (leading_to("ftp://x/"),)
            with pytest.raises(ConnectionFailed, match="no http:// or https:// address"):
                await upstream.models()
            await upstream.close()


@pytest.mark.parametrize("location", ["http://[::1/", "//["])
async def test_a_redirect_to_what_is_no_address_is_told_as_one(location: str) -> None:
    raw = Raw(leading_to(location))
    async with listening(raw.serve) as port:
        upstream = Upstream(connect_timeout=PATIENCE)
        upstream.open(f"http://127.0.0.1:{port}/v1")
        with pytest.raises(ConnectionFailed, match="a redirect to what is no address"):
            await upstream.models()
        await upstream.close()


async def test_a_listing_that_is_nested_without_end_is_told_as_none() -> None:
    listing = b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    raw = Raw(OK + b"Content-Length: %d\r\n\r\n" % len(listing) + listing)
    async with listening(raw.serve) as port:
        upstream = Upstream(connect_timeout=PATIENCE)
        upstream.open(f"http://127.0.0.1:{port}/v1")
        with pytest.raises(EngineFailed, match="lists no models"):
            await upstream.models()
        await upstream.close()


async def test_cookies_of_a_name_are_sent_back_and_those_of_an_address_are_not() -> None:
    raw = Raw(
        OK + b"Set-Cookie: route=a1; Path=/v1\r\nSet-Cookie: other=b2\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 0\r\n\r\n",
    )
    async with asking(raw) as client:
        for url in (raw.url.replace("127.0.0.1", "localhost") + "/v1/x", raw.url + "/v1/x"):
            await body_of(client, url)
            await body_of(client, url)
    cookies = [each for asked in raw.asked for each in asked.split(b"\r\n") if each.startswith(b"Cookie: ")]
    assert [sorted(each.removeprefix(b"Cookie: ").split(b"; ")) for each in cookies] == [[b"other=b2", b"route=a1"]]
    # A server that sets ever more of them does not make the requests grow.
    many = Raw(*[OK + b"Set-Cookie: c%d=x\r\nContent-Length: 0\r\n\r\n" % each for each in range(200)])
    async with asking(many) as client:
        for _ in range(200):
            await body_of(client, many.url.replace("127.0.0.1", "localhost"))
    assert max(len(each) for each in many.asked) < 1000


@pytest.mark.parametrize(
    "answer",
    [
        LENGTH,
        OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(ENCODED["gzip"]), ENCODED["gzip"]),
        LENGTH[:-1],
        b"HT",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["whole", "encoded", "cut off", "cut off in its head", "no HTTP", "refused"],
)
async def test_nothing_of_a_request_waits_for_the_garbage_collector(answer: bytes) -> None:
    """It would keep the request's body too, which may be large."""
    kinds = (connection.Connection, Answer, Closed, NoHttp, EngineFailed, InvalidRequest, codings._Zlib)
    raw = Raw(answer, closes=True)
    async with listening(raw.serve) as port:
        upstream = Upstream(connect_timeout=PATIENCE)
        url = f"http://127.0.0.1:{port}/v1"
        upstream.open(url)
        gc.collect()
        gc.disable()
        try:
            before = sum([type(each) in kinds for each in gc.get_objects()])
            for _ in range(3):
                with contextlib.suppress(EngineFailed):
                    await upstream.ask(url, {})
                with contextlib.suppress(EngineFailed, InvalidRequest):
                    async for _ in upstream.answer(request(), "m1"):
                        pass
            await upstream.close()
            for _ in range(5):  # until all connections have ended
                await asyncio.sleep(0.001)
            assert sum([type(each) in kinds for each in gc.get_objects()]) == before
        finally:
            gc.enable()
    assert len(raw.asked) >= 3


# Through the engine


async def test_an_engine_reads_a_stream_that_comes_in_another_coding() -> None:
    encoder = zlib.compressobj(wbits=31)
    pieces = [
        encoder.compress(each) + encoder.flush(zlib.Z_SYNC_FLUSH) for each in (step("a"), step("b", "stop"), DONE)
    ]
    chunks = b"".join([b"%x\r\n%b\r\n" % (len(each), each) for each in [*pieces, encoder.flush()]]) + b"0\r\n\r\n"
    head = OK + b"Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = Raw(head + chunks)
    async with (
        listening(raw.serve) as port,
        engine_for(f"http://127.0.0.1:{port}/v1", models=["m1"], refresh_interval=0, loading_timeout=0) as engine,
    ):
        deltas = await collect(engine, request())
    assert [(each.text, each.finish_reason) for each in deltas] == [("a", ""), ("b", "stop")]


async def test_an_answer_that_only_ever_begins_is_none() -> None:
    """What it begins with is kept back until it is one."""
    events = event({"choices": [], "odd": 1}) * (MAX_HELD + 1)
    raw = Raw(OK + b"Content-Type: text/event-stream\r\nContent-Length: 9999999\r\n\r\n" + events)
    async with (
        listening(raw.serve) as port,
        engine_for(f"http://127.0.0.1:{port}/v1", models=["m1"], refresh_interval=0) as engine,
    ):
        with pytest.raises(EngineFailed, match="begins an answer and says nothing"):
            await collect(engine, request())


async def test_ten_thousand_deltas_that_come_at_once_are_all_told() -> None:
    events = b"".join([step(f"{each} ") for each in range(10_000)]) + step(finish="stop") + DONE
    raw = Raw(OK + b"Content-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(events) + events)
    async with (
        listening(raw.serve) as port,
        engine_for(f"http://127.0.0.1:{port}/v1", models=["m1"], refresh_interval=0) as engine,
    ):
        deltas = await collect(engine, request())
    assert [each.text for each in deltas[:-1]] == [f"{each} " for each in range(10_000)]
    assert deltas[-1] == Delta(finish_reason="stop")


async def test_over_tls_all_is_the_same(tmp_path: Path) -> None:
    import ssl

    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    known = ssl.create_default_context()
    authority.configure_trust(known)
    raw = Raw(*[WAYS["chunks"]] * 3, OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
    async with listening(raw.serve, ssl=context) as port:
        url = f"https://localhost:{port}/"
        client = Client(connect_timeout=PATIENCE, tls=known)
        for _ in range(3):
            assert await body_of(client, url) == b"hello"
        assert len(await body_of(client, url, "POST", b"y" * 1_000_000)) == 100_000
        assert raw.connections == 1
        client.close()
        upstream = Upstream(connect_timeout=PATIENCE)
        upstream.open(url)
        with pytest.raises(ConnectionFailed, match="cannot be reached: TLS failed"):
            await upstream.ask(url, {})
        await upstream.close()


def test_on_uvloop_all_is_the_same(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")
    for way in WAYS:
        uvloop.run(test_answers_are_read_however_they_are_written_and_the_connection_is_kept(way))
    for way in CLOSING:
        uvloop.run(test_answers_that_end_with_their_connection_are_read(way))
    for way in BROKEN:
        uvloop.run(test_what_is_no_http_is_a_fault_and_ends_the_connection(way))
    for answer in CUT_OFF:
        uvloop.run(test_an_answer_that_is_cut_off_is_a_fault_after_what_has_arrived(answer))
    for check in (
        test_a_second_answer_to_one_request_is_not_taken_for_one_to_the_next,
        test_a_request_that_did_not_all_go_out_is_the_last_of_its_connection,
        test_a_server_that_ends_while_a_request_goes_out_is_not_waited_for,
        test_a_connection_on_which_something_comes_unasked_is_ended,
        test_a_body_is_not_taken_faster_than_it_is_read,
        test_who_does_not_answer_a_connection_is_left_in_time,
        test_silence_is_told_by_when_it_fell,
        test_a_cancelled_request_ends_its_connection,
        test_a_client_that_is_closed_while_it_connects_keeps_nothing,
    ):
        uvloop.run(check())
    uvloop.run(test_over_tls_all_is_the_same(tmp_path))
