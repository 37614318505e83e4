"""Clients that keep asking, how long each token was under way, and where the time of each task went by the server's own
word (``x-anywire-stages``)."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from peers.workload import BURST_TOKENS, PACED_TOKENS, TOKEN, Phase, request

STAGED = 2000
"""Answers at most whose stages are read."""
_HEAD_STAGES = re.compile(rb"\r\nx-anywire-stages: ([^\r]+)\r\n", re.IGNORECASE)
_END_STAGES = re.compile(rb"\n: anywire (\{[^\n]+\})\n")
PHASES = (
    Phase("one client", 1),
    Phase("64 clients", 64),
    Phase("one burst stream", 1, BURST_TOKENS),
    Phase("32 burst streams", 32, BURST_TOKENS),
    Phase("one paced stream", 1, PACED_TOKENS),
    Phase("16 paced streams", 16, PACED_TOKENS),
)


class Found(NamedTuple):
    """Seconds it took in all, answers, times of whole answers or to the first token and of each token's way in
    microseconds, and milliseconds between stages by name."""

    seconds: float
    answers: int
    times: list[float]
    ways: list[int]
    stages: dict[str, list[float]]

    def units(self, phase: Phase) -> int:
        """How many requests or tokens."""
        return self.answers * (phase.tokens or 1)

    def plus(self, other: Found) -> Found:
        """Both together."""
        names = (*self.stages, *(name for name in other.stages if name not in self.stages))
        return Found(
            self.seconds + other.seconds,
            self.answers + other.answers,
            self.times + other.times,
            self.ways + other.ways,
            {name: self.stages.get(name, []) + other.stages.get(name, []) for name in names},
        )

    def median_stages(self) -> dict[str, float]:
        """Microseconds between stages, medians, in the order of the stages."""
        return {name: statistics.median(values) * 1000 for name, values in self.stages.items()}


class _Client(asyncio.Protocol):
    """One connection that asks the same again and again until a time."""

    def __init__(self, asks: bytes, streams: bool, until: float, staged: list[bytes]) -> None:
        self._asks, self._streams, self._until, self._staged = asks, streams, until, staged
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
        self._transport.write(self._asks)

    def data_received(self, data: bytes) -> None:
        now, buffer = time.perf_counter_ns(), self._buffer
        buffer += data
        if self._streams:
            for found in TOKEN.finditer(buffer, self._scanned):
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


def request_of(phase: Phase, url: str) -> bytes:
    """The request that asks for stages as well."""
    return request(urlsplit(url).netloc, phase.tokens).replace(b"\r\n", b"\r\nx-anywire-stages: true\r\n", 1)


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


async def ask_for(phase: Phase, url: str, seconds: float) -> Found:
    """Keep so many clients asking for so long. Raises `RuntimeError` when one is not answered in full."""
    where, loop = urlsplit(url), asyncio.get_running_loop()
    asks, staged = request_of(phase, url), list[bytes]()
    until = time.perf_counter() + seconds
    clients: list[_Client] = []
    try:
        for _ in range(phase.clients):
            _, client = await loop.create_connection(
                lambda: _Client(asks, phase.tokens > 0, until, staged), where.hostname or "", where.port or 80
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
