"""A closed-loop HTTP load client that costs little itself: bare sockets, keep-alive, nothing parsed but lengths.

python benchmarks/http_load.py URL [--clients 64] [--requests 5000] [--stream] [--tokens 64] [--model synthetic]

A key, where the server asks for one, is in the variable ANYWIRE_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import msgspec


class Result(msgspec.Struct):
    """Times of single requests in seconds, the whole run's duration, and SSE events with a token in them."""

    seconds: float
    times: list[float]
    tokens: int


class _Connection(asyncio.Protocol):
    """Sends one request at a time. ``finished`` says whether the bytes so far are a whole answer."""

    def __init__(self, finished: Callable[[bytearray], bool]) -> None:
        self._finished, self._done = finished, asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._finished(self._buffer) and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> bytearray:
        self._buffer = bytearray()
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._done
        return self._buffer

    def close(self) -> None:
        self._done = asyncio.get_running_loop().create_future()
        self._done.set_result(None)
        self._transport.close()


def _whole(buffer: bytearray) -> bool:
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = buffer.lower().find(b"content-length:", 0, head)
    length = int(buffer[at + 15 : buffer.find(b"\r\n", at)])
    return len(buffer) >= head + 4 + length


def _stream_ended(buffer: bytearray) -> bool:
    refused = b"\r\n\r\n" in buffer and not buffer.startswith(b"HTTP/1.1 200")
    return refused or buffer.endswith(b"0\r\n\r\n")


def _request(url: str, model: str, stream: bool, tokens: int, prompt_chars: int, key: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "x" * prompt_chars}], "max_tokens": tokens}
    payload = json.dumps(body | ({"stream": True} if stream else {})).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
    if key:
        head += f"Authorization: Bearer {key}\r\n"
    return f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload


async def load(
    url: str,
    *,
    clients: int,
    requests: int,
    stream: bool = False,
    tokens: int = 20,
    model: str = "synthetic",
    expect: str = "",
    key: str = "",
) -> Result:
    """Run ``requests`` in all over ``clients`` connections, each with ``key`` if one is given. Raises a group of
    AssertionErrors at an answer that is no 200 or has no header line ``expect``, and of ConnectionErrors."""
    where = urlsplit(url)
    request = _request(url, model, stream, tokens, 300, key)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    left, events = requests, 0
    expected = expect.encode()

    async def client(connection: _Connection) -> None:
        nonlocal left, events
        while left > 0:
            left -= 1
            began = time.perf_counter()
            answer = await connection.ask(request)
            times.append(time.perf_counter() - began)
            assert answer.startswith(b"HTTP/1.1 200"), bytes(answer[:300])
            assert answer.find(expected, 0, answer.find(b"\r\n\r\n") + 2) >= 0, bytes(answer[:500])
            if stream:
                assert b"data: [DONE]" in answer, bytes(answer[-300:])
                events += answer.count(b'"content":"') - answer.count(b'"content":""')

    connections = []
    try:
        for _ in range(clients):
            _, made = await loop.create_connection(
                lambda: _Connection(_stream_ended if stream else _whole), where.hostname or "", where.port or 80
            )
            connections.append(made)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(client(connection))
        seconds = time.perf_counter() - began
    finally:
        for connection in connections:
            connection.close()
    return Result(seconds, times, events)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--model", default="synthetic")
    options = vars(parser.parse_args())
    result = asyncio.run(load(options.pop("url"), **options, key=os.environ.get("ANYWIRE_API_KEY", "")))
    cuts, rate = statistics.quantiles(result.times, n=100), len(result.times) / result.seconds
    print(f"p50 {cuts[49] * 1e6:.0f} us  p99 {cuts[98] * 1e6:.0f} us  {rate:,.0f} requests/s")
    if result.tokens:
        print(f"{result.tokens / result.seconds:,.0f} tokens/s")


if __name__ == "__main__":
    main()
