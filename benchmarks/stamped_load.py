"""Clients of a server whose tokens tell when they were made: how long each token was under way, and where the time of
each task went by the server's own word (``x-anywire-stages``)."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from stamped_engine import BURST, PACED

PROMPT_CHARS = 300
STAGED = 2000
"""Answers at most whose stages are read."""
_STAMP = re.compile(rb"@(\d+) ")
_HEAD_STAGES = re.compile(rb"\r\nx-anywire-stages: ([^\r]+)\r\n", re.IGNORECASE)
_END_STAGES = re.compile(rb"\n: anywire (\{[^\n]+\})\n")


class Shape(NamedTuple):
    """What is asked for. ``tokens`` of each stream; 0: a whole answer."""

    name: str
    clients: int
    tokens: int = 0
    paced: bool = False

    @property
    def unit(self) -> str:
        return "token" if self.tokens else "request"


SHAPES = (
    Shape("one client", 1),
    Shape("64 clients", 64),
    Shape("one burst stream", 1, 64),
    Shape("32 burst streams", 32, 64),
    Shape("one paced stream", 1, 32, True),
    Shape("16 paced streams", 16, 32, True),
)


class Found(NamedTuple):
    """Seconds it took in all, answers, times of whole answers or to the first token and of each token's way in
    microseconds, and milliseconds between stages by name."""

    seconds: float
    answers: int
    times: list[float]
    ways: list[int]
    stages: dict[str, list[float]]

    def units(self, shape: Shape) -> int:
        """How many requests or tokens."""
        return self.answers * (shape.tokens or 1)

    def median_stages(self) -> dict[str, float]:
        """Microseconds between stages, medians, in the order of the stages."""
        return {name: statistics.median(values) * 1000 for name, values in self.stages.items()}


class _Client(asyncio.Protocol):
    """One connection that asks the same again and again until a time."""

    def __init__(self, request: bytes, streams: bool, until: float, staged: list[bytes]) -> None:
        self._request, self._streams, self._until, self._staged = request, streams, until, staged
        self._buffer = bytearray()
        self._scanned = 0
        self._began = 0
        self._transport: asyncio.Transport
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.times: list[float] = []
        self.ways: list[int] = []
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))

    def ask(self) -> None:
        self._buffer.clear()
        self._scanned = 0
        self._began = time.perf_counter_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now, buffer = time.perf_counter_ns(), self._buffer
        buffer += data
        if self._streams:
            for found in _STAMP.finditer(buffer, self._scanned):
                if not self._scanned:
                    self.times.append((now - self._began) / 1000)
                self._scanned = found.end()
                self.ways.append(now // 1000 - int(found[1]))
            if buffer.endswith(b"0\r\n\r\n"):
                self._ended(b"data: [DONE]" in buffer)
        elif _is_whole(buffer):
            self.times.append((now - self._began) / 1000)
            self._ended(True)
        if buffer and not b"HTTP/1.1 200".startswith(bytes(buffer[:12])):
            self._fail(f"not answered: {bytes(buffer[:300])!r}")

    def _ended(self, complete: bool) -> None:
        if not complete:
            self._fail(f"broke off: {bytes(self._buffer[-300:])!r}")
            return
        self.answers += 1
        if len(self._staged) < STAGED:
            self._staged.append(bytes(self._buffer))
        if time.perf_counter() < self._until:
            self.ask()
        elif not self.done.done():
            self.done.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))
        self._transport.abort()

    def close(self) -> None:
        self.done.cancel()
        self._transport.close()


def _is_whole(buffer: bytearray) -> bool:
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = buffer.lower().find(b"content-length:", 0, head)
    return len(buffer) >= head + 4 + int(buffer[at + 15 : buffer.find(b"\r\n", at)])


def request_of(shape: Shape, url: str) -> bytes:
    message = {"role": "user", "content": "x" * PROMPT_CHARS}
    body = {"model": PACED if shape.paced else BURST, "messages": [message], "max_tokens": shape.tokens or 20}
    text = json.dumps(body | ({"stream": True} if shape.tokens else {}))
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
        f"x-anywire-stages: true\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    ).encode()


def read_stages(answers: Sequence[bytes]) -> dict[str, list[float]]:
    """Milliseconds between two stages by their names, of each answer that tells them."""
    stages: dict[str, list[float]] = {}
    for answer in answers:
        if (head := _HEAD_STAGES.search(answer)) is not None:
            pairs = [part.strip().partition(";dur=")[::2] for part in head[1].decode().split(",")]
            spans = {name: float(value) for name, value in pairs}
        elif (end := _END_STAGES.search(answer)) is not None:
            spans = json.loads(end[1])["stages"]
        else:
            continue
        for name, value in spans.items():
            stages.setdefault(name, []).append(value)
    return stages


async def ask_for(shape: Shape, url: str, seconds: float) -> Found:
    """Keep so many clients asking for so long. Raises `RuntimeError` when one is not answered in full."""
    where, loop = urlsplit(url), asyncio.get_running_loop()
    request, staged = request_of(shape, url), list[bytes]()
    until = time.perf_counter() + seconds
    clients: list[_Client] = []
    try:
        for _ in range(shape.clients):
            _, client = await loop.create_connection(
                lambda: _Client(request, shape.tokens > 0, until, staged), where.hostname or "", where.port or 80
            )
            clients.append(client)
        began = time.perf_counter()
        for client in clients:
            client.ask()
        await asyncio.gather(*(client.done for client in clients))
        took = time.perf_counter() - began
    finally:
        for client in clients:
            client.close()
    times = [each for client in clients for each in client.times]
    ways = [each for client in clients for each in client.ways]
    return Found(took, sum(client.answers for client in clients), times, ways, read_stages(staged))
