"""The clients of a phase: connections that are kept, each with its next request as soon as it has its answer.

A connection asks again within the very call that brought the answer's end, so that the client, which shares its cores
with what is measured, costs little and adds no turn of its event loop to a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import cast
from urllib.parse import urlsplit

import httptools

from peers.workload import LONGEST_TOKEN, TOKEN, WORDS, Phase, request

MOST_ERRORS = 20
"""After so many a phase is given up."""
PATIENCE = 30.0
"""Seconds that the last answers of a phase may take after its end."""
_LAST_WORD, _DONE = WORDS[-1].encode(), b"data: [DONE]"
_now = time.perf_counter_ns


class Tally:
    """What the clients of a phase were answered. Times are nanoseconds of the monotonic clock."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int]] = []
        """When each request that was answered well was sent, and when its answer had come whole."""
        self.firsts: list[int] = []
        """From sending to the first token, of each stream."""
        self.arrivals: list[int] = []
        """When each token came."""
        self.ways: list[int] = []
        """From the engine that made a token to the client that read it, of each token."""
        self.errors = 0
        self.error = ""
        """The first one."""
        self._stuck = False

    def fail(self, what: str, *, stuck: bool = False) -> None:
        self.errors += 1
        self.error = self.error or what[:400]
        self._stuck |= stuck

    @property
    def hopeless(self) -> bool:
        """Nothing more is to be expected."""
        return self._stuck or self.errors >= MOST_ERRORS


class Connection(asyncio.Protocol):
    """One connection of a phase's client."""

    def __init__(self, asks: bytes, tokens: int, tally: Tally) -> None:
        self._request, self._tokens, self._tally = asks, tokens, tally
        self.on_body: Callable[[bytes], None] = self._stream_part if tokens else self._whole_part
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._until = self._began = self._read_at = 0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._body = self._rest = b""
        self._arrivals: list[int] = []
        self._ways: list[int] = []
        self._newest, self._in_order, self._done = 0, True, False

    async def run(self, until: int) -> None:
        """Ask again and again until the clock shows ``until``, or the server closes the connection after an answer.
        Raises `ConnectionError` when it breaks within one."""
        self._until = until
        self._ask()
        await self._ended

    def close(self) -> None:
        self._end()
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def connection_lost(self, error: Exception | None) -> None:
        self._break(f"closed within an answer: {error!r}")

    def data_received(self, data: bytes) -> None:
        self._read_at = _now()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"no HTTP: {error!r}: {data[:100]!r}")
            self._transport.close()

    def _whole_part(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        if wrong := self._wrong(status):
            self._tally.fail(wrong)
        else:
            self._count()
        if self._read_at >= self._until or self._tally.hopeless or not self._parser.should_keep_alive():
            self._end()
        else:
            self._ask()

    def _stream_part(self, part: bytes) -> None:
        text = self._rest + part
        end = 0
        for found in TOKEN.finditer(text):
            made = int(found[1])
            self._in_order &= made >= self._newest
            self._newest = made
            self._arrivals.append(self._read_at)
            self._ways.append(self._read_at - 1000 * made)
            end = found.end()
        if _DONE in text:
            self._done = True
        self._rest = text[max(end, len(text) - LONGEST_TOKEN) :]
        if not self._arrivals:
            self._body += part  # an error, perhaps

    def _ask(self) -> None:
        self._body = self._rest = b""
        if self._tokens:
            self._arrivals, self._ways = [], []
            self._newest, self._in_order, self._done = 0, True, False
        self._began = _now()
        self._transport.write(self._request)

    def _wrong(self, status: int) -> str:
        """What is wrong with an answer; empty for one that is right."""
        if status != 200:
            return f"status {status}: {self._body[:300]!r}"
        if not self._tokens:
            return "" if _LAST_WORD in self._body else f"no answer: {self._body[:300]!r}"
        if len(self._arrivals) != self._tokens or not self._done or not self._in_order:
            how = "" if self._done else ", without its end"
            order = "" if self._in_order else ", out of order"
            count = f"{len(self._arrivals)} tokens instead of {self._tokens}"
            return f"a stream of {count}{how}{order}: {self._body[:200]!r}"
        return ""

    def _count(self) -> None:
        tally = self._tally
        tally.requests.append((self._began, self._read_at))
        if self._tokens:
            tally.firsts.append(self._arrivals[0] - self._began)
            tally.arrivals += self._arrivals
            tally.ways += self._ways

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _break(self, how: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(ConnectionError(how))


class Client:
    """Keeps one connection to ``url`` and opens another one after it."""

    def __init__(self, url: str, tokens: int, tally: Tally) -> None:
        where = urlsplit(url)
        self._host, self._port = where.hostname or "", where.port or 80
        self._request, self._tokens, self._tally = request(where.netloc, tokens), tokens, tally
        self._connection: Connection | None = None

    async def open(self) -> Connection:
        if self._connection is None:
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(
                lambda: Connection(self._request, self._tokens, self._tally), self._host, self._port
            )
        return self._connection

    async def run(self, until: int) -> None:
        """Ask until the clock shows ``until``. What breaks is an error of the tally."""
        while _now() < until and not self._tally.hopeless:
            try:
                connection = await self.open()
                await connection.run(until)
            except OSError as error:
                self._tally.fail(str(error))
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Clients:
    """The clients of a phase, spread over ``urls``: opened first, so that what is measured begins with all of them."""

    def __init__(self, urls: Sequence[str], phase: Phase) -> None:
        self.tally = Tally()
        self._clients = [Client(urls[each % len(urls)], phase.tokens, self.tally) for each in range(phase.clients)]

    async def open(self) -> None:
        """Raises `OSError`."""
        for each in self._clients:
            await each.open()

    async def run(self, seconds: float) -> tuple[int, int]:
        """Ask for so long, and wait for the last answers; from when until when that was, without the wait."""
        began = _now()
        until = began + int(1e9 * seconds)
        try:
            async with asyncio.timeout(seconds + PATIENCE):
                await asyncio.gather(*(each.run(until) for each in self._clients))
        except TimeoutError:
            self.tally.fail(f"no answer {PATIENCE:.0f} s after the end of the phase", stuck=True)
        return began, until

    def close(self) -> None:
        for each in self._clients:
            each.close()
