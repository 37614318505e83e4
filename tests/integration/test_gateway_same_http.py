"""The gateway's own HTTP beside aiohttp's server: the same requests get the same answers from both.

What differs, and is meant to:

- Where what is no HTTP comes in the same segment behind whole requests, aiohttp answers it alone. Here the requests
  before it are answered first.
- aiohttp takes what follows a request that closes the connection for such a fault, too. Here it is not looked at.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.fuzzed_requests import MAX_BODY_BYTES, PADDING, Requests
from tests.integration.gateway_serving import Served, serving
from tests.integration.test_gateway_fuzz import Answer, answers
from tests.long_form import SOAK, examples
from tests.patience import FACTOR, PATIENCE

import anywire_gateway_openai.gateway
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire_gateway_openai.protocol import OpenAIServer

LONGEST = 240
WAITS_S = 3 * FACTOR
"""Seconds without a word after which a server waits for its client."""
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}).encode()
STREAM = json.dumps({**json.loads(BODY), "stream": True}).encode()
LAST = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
NO_HTTP = b"this is not HTTP"
_HEAD_ALONE = re.compile(rb"(content-length: )[0-9]+((?:\r\n[^\r\n]+)*\r\n\r\n)(?=HTTP/1|\Z)", re.IGNORECASE)
"""An answer to HEAD: it tells of a body that it does not have."""
CLOSING = (
    "closing",
    "closing among others",
    "two connections",
    "HTTP/1.0",
    "HTTP/1.0 streamed",
    "HTTP/1.0 without a host",
)
"""Of the odd ones those with whose answer the connection ends: what comes later might cut it off."""
VOLATILE = {"date", "x-request-id", "x-anywire-task", "x-anywire-stages", "content-length", "retry-after"}


def post(*headers: str, body: bytes = BODY, path: str = "/v1/chat/completions", version: str = "1.1") -> bytes:
    """A chat with further headers; ``Content-Length`` and ``Host`` unless they are named."""
    lines = list(headers)
    names = {each.partition(":")[0].lower() for each in headers}
    if "host" not in names:
        lines.insert(0, "Host: x")
    if not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    head = "".join(f"{each}\r\n" for each in (f"POST {path} HTTP/{version}", "Content-Type: application/json", *lines))
    return head.encode("latin-1") + b"\r\n" + body


def get(target: str, *headers: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    return "".join(f"{each}\r\n" for each in (f"{method} {target} {version}", "Host: x", *headers, "")).encode(
        "latin-1"
    )


CHUNKED = "Transfer-Encoding: chunked"
LENGTH = f"Content-Length: {len(BODY)}"
ODD = {
    "usual": post(),
    "streamed": post(body=STREAM),
    "no body": post(body=b""),
    "no content length": b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    "get with a body": post().replace(b"POST /v1/chat/completions", b"GET /v1/models", 1),
    "head": get("/v1/models", method="HEAD"),
    "head of nothing": get("/v1/nothing", method="HEAD"),
    "options": get("/v1/models", method="OPTIONS"),
    "options of all": get("*", method="OPTIONS"),
    "put": get("/v1/models", method="PUT"),
    "patch": get("/v1/models", method="PATCH"),
    "trace": get("/v1/models", method="TRACE"),
    "propfind": get("/v1/models", method="PROPFIND"),
    "connect": get("x:443", method="CONNECT"),
    "small letters": get("/v1/models", method="get"),
    "unknown method": get("/v1/models", method="NONSENSE"),
    "absolute target": get("http://x/v1/models"),
    "query": get("/v1/models?a=%20b&c#d"),
    "fragment": get("/v1/models#a?b"),
    "escapes": get("/v1/models/%6d"),
    "bad escapes": get("/v1/models/%zz%0d%0a"),
    "two slashes": get("//v1//models"),
    "dots": get("/v1/../v1/models"),
    "not ASCII": get("/v1/models/\xfc"),
    "control character": get("/v1/mod\x01els"),
    "HTTP/1.0": post(version="1.0"),
    "HTTP/1.0 kept": post("Connection: keep-alive", version="1.0"),
    "HTTP/1.0 without a host": b"GET /v1/models HTTP/1.0\r\n\r\n",
    "HTTP/1.0 streamed": post(body=STREAM, version="1.0"),
    "HTTP/2.0": get("/v1/models", version="HTTP/2.0"),
    "HTTP/9.9": get("/v1/models", version="HTTP/9.9"),
    "no version": b"GET /v1/models\r\n\r\n",
    "not HTTP": b"XTTP nonsense\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "closing": post("Connection: close"),
    "closing among others": post("Connection: foo, close"),
    "two connections": post("Connection: keep-alive", "Connection: close"),
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "empty host": post("Host:"),
    "two hosts": post("Host: x", "host: y"),
    "two lengths": post(LENGTH, LENGTH),
    "two different lengths": post(LENGTH, "Content-Length: 3"),
    "length with a sign": post(f"Content-Length: +{len(BODY)}"),
    "negative length": post("Content-Length: -1"),
    "lengths in a list": post(f"Content-Length: {len(BODY)}, {len(BODY)}"),
    "hexadecimal length": post("Content-Length: 0x10"),
    "length with zeros": post(f"Content-Length: 000{len(BODY)}"),
    "length with thousands of zeros": post(f"Content-Length: {'0' * 5000}{len(BODY)}"),
    "length with spaces": post(f"Content-Length:   {len(BODY)} \t"),
    "length with a space inside": post("Content-Length: 1 0"),
    "huge length": post("Content-Length: " + "9" * 30),
    "length of other digits": post("Content-Length: \xb2"),
    "empty length": post("Content-Length:"),
    "chunked": post(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunked with an extension": post(CHUNKED, body=b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunked with a trailer": post(CHUNKED, body=b"%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (len(BODY), BODY)),
    "chunked wrongly": post(CHUNKED, body=b"zz\r\n" + BODY),
    "chunked and a length": post(CHUNKED, LENGTH, body=b"0\r\n\r\n"),
    "length and chunked": post(LENGTH, CHUNKED, body=b"0\r\n\r\n"),
    "chunked in capitals": post("Transfer-Encoding: CHUNKED", body=b"0\r\n\r\n"),
    "chunked not last": post("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked with a vertical tab": post("Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n"),
    "identity": post("Transfer-Encoding: identity"),
    "folded": post("X-Folded: a\r\n b"),
    "folded length": post("Content-Length:\r\n 5"),
    "space before the colon": post("Content-Length : 5"),
    "space before a name": b"GET /v1/models HTTP/1.1\r\n Host: x\r\n\r\n",
    "no name": post(": a"),
    "no colon": post("nothing"),
    "name with a control character": post("X-\x01: a"),
    "bare LF": b"GET /v1/models HTTP/1.1\nHost: x\n\n",
    "bare LF behind a header": b"GET /v1/models HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare LF for the empty line": b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\n",
    "bare CR": b"GET /v1/models HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
    "empty lines before": b"\r\n\r\n" + post(),
    "an empty line before": b"\r\n" + post(),
    "NUL in a value": post("X-A: a\0b"),
    "tab in a value": post("X-A: a\tb"),
    "not ASCII in a value": post("x-request-id: \xfc"),
    "not UTF-8 in a session": post("x-anywire-session: \xff\xfe"),
    "the same header twice": post("cache-control: no-store", "Cache-Control: no-cache"),
    "the same type twice": post("content-type: application/json"),
    "many headers": post(*(f"x-{number}: y" for number in range(100))),
    "too many headers": post(*(f"x-{number}: y" for number in range(300))),
    "a long header": post("x-long: " + "y" * 8000),
    "a header that is too long": post("x-long: " + "y" * 9000),
    "many long headers": post(*(f"x-{number}: {'y' * 4000}" for number in range(20))),
    "a long target": get("/v1/models/" + "m" * 7000),
    "a target that is too long": get("/v1/models/" + "m" * 9000),
    "upgrade": get("/v1/models", "Upgrade: websocket", "Connection: Upgrade"),
    "upgrade to HTTP/2": get("/v1/models", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: x"),
    "upgrade without a connection": get("/v1/models", "Upgrade: websocket"),
    "connection without an upgrade": get("/v1/models", "Connection: Upgrade"),
    "old web socket": get("/v1/ws/chat", "Sec-WebSocket-Key1: x"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "expect": post("Expect: 100-continue"),
    "expect magic": post("Expect: magic"),
    "wrong type": post().replace(b"application/json", b"text/plain"),
    "wrong JSON": post(body=b"{"),
    "page elsewhere": post("Origin: http://evil"),
    "page here": post("Origin: http://localhost:3000"),
    "proxies": post("X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 5.6.7.8"),
    "key": post("Authorization: Basic eDp5"),
    "tenant": post("x-anywire-tenant: a"),
    "too large": post(body=b" " * (MAX_BODY_BYTES + 1)),
}  # fmt: skip


def shown(answer: Answer) -> tuple[object, ...]:
    """What must be equal: without ids, times and numbers."""
    headers = [(name, "" if name in VOLATILE else value) for name, value in answer.headers.items()]
    body = re.sub(rb"[0-9a-f]{24,}|req-[0-9a-f-]+", b"ID", answer.body)
    return answer.status, headers, re.sub(rb"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", b"0", body)


async def exchange(port: int, *segments: bytes) -> list[Answer]:
    """The answers to ``segments``, each of which the server reads by itself, until it closes the connection or waits
    for more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()
    try:
        for each in segments:
            writer.write(each)
            for _ in range(8):  # the server reads it in one of these turns
                await asyncio.sleep(0)
        while piece := await asyncio.wait_for(reader.read(65536), WAITS_S):
            got += piece
    except (ConnectionError, TimeoutError):
        pass  # it was closed before all had been read, or waits for the rest of a body or of a line
    finally:
        writer.transport.abort()
    return list(answers(_HEAD_ALONE.sub(rb"\g<1>0\2", bytes(got))))


def end_of(name: str) -> tuple[bytes, ...]:
    """What is sent behind an odd request, so that the server closes the connection."""
    return () if name in CLOSING else (PADDING,)


@asynccontextmanager
async def both(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Served, Served]]:
    """A gateway as it is, and one with aiohttp's server alone."""
    options: dict[str, Any] = {"timeout": LONGEST, "max_body_bytes": MAX_BODY_BYTES, "body_timeout": PATIENCE}
    engines = [SyntheticEngine(SyntheticConfig(models=["m"], length=30)) for _ in range(2)]
    async with serving(engines[0], **options) as own:
        with monkeypatch.context() as patch:
            patch.setattr(anywire_gateway_openai.gateway, "HttpServer", OpenAIServer)
            other = serving(engines[1], **options)
            served = await other.__aenter__()
        try:
            yield own, served
        finally:
            await other.__aexit__(None, None, None)


async def check_same(own: Served, other: Served, *segments: bytes, at_once: bool = False) -> list[Answer]:
    """With ``at_once`` what is no HTTP may stand behind a request in the same segment."""
    got, expected = [await exchange(each.port, *segments) for each in (own, other)]
    if [shown(each) for each in got] != [shown(each) for each in expected]:
        fault_alone = [each.status for each in expected] == [400] and NO_HTTP in expected[0].body
        assert at_once, f"{got}\n{expected}\n{segments[0][:2000]!r}"
        assert fault_alone, f"{got}\n{expected}\n{segments[0][:2000]!r}"
    return got


@pytest.mark.timeout(LONGEST)
async def test_odd_requests_get_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = 0
    async with both(monkeypatch) as (own, other):
        for name, sent in ODD.items():
            answered += len(await check_same(own, other, sent, *end_of(name)))
    assert answered > len(ODD)


@pytest.mark.timeout(LONGEST)
async def test_odd_requests_behind_a_usual_one_get_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both(monkeypatch) as (own, other):
        for name, sent in ODD.items():
            got = await check_same(own, other, post(), sent, *end_of(name))
            assert got[0].status == 200, name


@pytest.mark.timeout(LONGEST)
async def test_what_is_sent_at_once_differs_as_it_is_meant_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both(monkeypatch) as (own, other):
        for name, sent in ODD.items():
            if name == "upgrade to HTTP/2":
                continue  # what comes behind it waits at aiohttp until the connection is closed as idle
            together = post() + sent + LAST + PADDING
            got = await check_same(own, other, together, at_once=True)
            assert got[0].status == 200, name


@pytest.mark.timeout(LONGEST)
async def test_random_requests_get_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(10**6) if SOAK else 88
    async with both(monkeypatch) as (own, other):
        requests = Requests(seed)
        for number in range(examples(200)):
            sent = requests.request() if number % 4 else requests.mutated(requests.request())
            if b" HTTP/1.0\r\n" in sent:
                continue  # it closes the connection, and what comes later might cut its answer off
            try:
                await check_same(own, other, sent, PADDING, at_once=True)  # some lengths are too short
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, request {number}: {error}") from error
