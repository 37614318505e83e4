"""A connection to the mock engine: HTTP in, requests answered one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

import httptools
import msgspec

from anywire_experiment.mock_engine.answers import KNOWN, MOST_TOKENS, PATH, UNKNOWN, decode, error
from anywire_experiment.mock_engine.engine import Answer, Engine

LARGEST = 64 * 1024 * 1024
"""Bytes of a request; one that is larger is refused."""
MOST_WAITING = 16
"""Requests of one connection that wait for the one before, beyond which it is not read."""


class Connection(asyncio.Protocol):
    """A connection, whose requests are answered one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.paused = False
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._url, self._body = b"", bytearray()
        self._answer: Answer | None = None
        self._later: deque[tuple[bytes, bytes, bool]] = deque()
        self._keep = True

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def end(self, data: bytes) -> None:
        """The last of an answer: the next request is answered now."""
        self._transport.write(data)
        self._leave()
        if not self._keep:
            self._transport.close()
        else:
            self._go_on()

    # What the transport and the parser call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def connection_lost(self, reason: Exception | None) -> None:
        self._later.clear()
        self._leave()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._answer is not None:
            self._answer.go_on()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()  # another protocol, tried out

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_body(self, part: bytes) -> None:
        self._body += part
        if len(self._body) > LARGEST:
            self._transport.write(error(413, "Content Too Large", f"a request has {LARGEST} bytes at most"))
            self._transport.close()

    def on_message_complete(self) -> None:
        request = self._url, bytes(self._body), self._parser.should_keep_alive()
        self._url, self._body = b"", bytearray()
        self._later.append(request)
        self._go_on()
        if len(self._later) >= MOST_WAITING:
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Answer what has come, until one takes time."""
        while self._later and self._answer is None and not self._transport.is_closing():
            url, body, self._keep = self._later.popleft()
            if (refused := self._take(url.partition(b"?")[0], body)) is not None:
                self._transport.write(refused)
                if not self._keep:
                    self._transport.close()
        if len(self._later) < MOST_WAITING and not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self, path: bytes, body: bytes) -> bytes | None:
        """Begin an answer; or give the whole of one that takes no time."""
        if path != PATH:
            return KNOWN.get(path, UNKNOWN)
        try:
            asked = decode(body)
        except msgspec.DecodeError as wrong:
            return error(400, "Bad Request", str(wrong))
        if not 1 <= (asked.max_tokens or asked.max_completion_tokens or 1) <= MOST_TOKENS:
            return error(400, "Bad Request", f"max_tokens is from 1 to {MOST_TOKENS}")
        self._answer = Answer(self, asked, self._engine.pace)
        self._engine.enter(self._answer)
        return None

    def _leave(self) -> None:
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer.stop()
            self._engine.leave(answer)
