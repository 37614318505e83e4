"""Requests to the OpenAI gateway: bare connections, so that the generator costs little beside what it measures."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from anywire.errors import AgentUnavailable
from anywire_experiment.load.openai_bodies import counted, error_code, event_of, models_of, read_whole
from anywire_experiment.load.rows import Answer
from anywire_experiment.load.target import Question, Target
from anywire_experiment.plan.traffic import CANCELLED


class HttpTarget(Target):
    """As many keep-alive connections as there are requests under way at once."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        """``url`` without a path is of an API at ``/v1``; every request has ``headers``."""
        where = urlsplit(url)
        self._api = where.path.rstrip("/") or "/v1"
        self._headers = "".join(f"{name}: {text}\r\n" for name, text in (headers or {}).items())
        self._host, self._port = where.hostname or "", where.port or 80
        self._netloc = where.netloc
        self._idle: deque[_Connection] = deque()
        self._all: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def first_model(self) -> str:
        answer, body = await self._exchange(self._head("GET", "/models", ""), Question("", b"", False, 0, 10.0, 0))
        if answer.status != 200:
            raise AgentUnavailable(f"the gateway does not tell its models: {answer.outcome} {bytes(body[:200])!r}")
        try:
            models = models_of(body).data
        except (msgspec.DecodeError, RecursionError) as error:
            raise AgentUnavailable(f"the gateway does not tell its models: {error}: {bytes(body[:200])!r}") from error
        if not models:
            raise AgentUnavailable("the gateway offers no model: is there an agent?")
        # One of a service, such as a deliberation, is asked for by its name.
        return next((each for each in models if each.agents), models[0]).id

    async def connect(self, clients: int) -> None:
        self._idle.extend([await self._new() for _ in range(clients - len(self._idle))])

    async def ask(self, question: Question) -> Answer:
        extra = f"Content-Type: application/json\r\nContent-Length: {len(question.body)}\r\n"
        if question.priority:
            extra += f"x-anywire-priority: {question.priority}\r\n"
        if question.tenant:
            extra += f"x-anywire-tenant: {question.tenant}\r\n"
        if question.session_name:
            extra += f"x-anywire-session: {question.session_name}\r\n"
        if question.deadline_s:
            extra += f"x-anywire-timeout: {question.deadline_s:g}\r\n"
        head = self._head("POST", "/chat/completions", extra)
        answer, body = await self._exchange(head + question.body, question)
        if answer.outcome == "ok" and not question.stream:
            read_whole(answer, body)
        return answer

    async def close(self) -> None:
        for connecting in self._connecting:
            connecting.cancel()
        for connection in self._all:
            connection.transport.close()

    def _head(self, method: str, path: str, extra: str) -> bytes:
        given = f"Host: {self._netloc}\r\n{self._headers}{extra}"
        return f"{method} {self._api}{path} HTTP/1.1\r\n{given}\r\n".encode()

    async def _new(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Connection, self._host, self._port)
        self._all.add(made)
        return made

    async def _connect_another(self) -> None:
        with contextlib.suppress(OSError):
            self._idle.append(await self._new())

    async def _exchange(self, request: bytes, question: Question) -> tuple[Answer, bytes]:
        answer = Answer()
        connection = None
        try:
            async with asyncio.timeout(question.patience_s):
                while connection is None or connection.transport.is_closing():
                    if connection is not None:
                        self._all.discard(connection)
                    connection = self._idle.popleft() if self._idle else await self._new()
                answer.sent_ns = time.monotonic_ns()
                body = await connection.exchange(request, answer, question)
            self._idle.append(connection)
        except TimeoutError:
            answer.outcome, body = question.ended_early(), b""
        except _GivenUp:
            answer.outcome, body = CANCELLED, b""
        except OSError:
            answer.outcome, body = "connection", b""
        except httptools.HttpParserError:
            answer.outcome, body = "bad_http", b""
        finally:
            if connection is not None and (not self._idle or self._idle[-1] is not connection):
                connection.transport.close()
                self._all.discard(connection)
        answer.done_ns = time.monotonic_ns()
        if answer.outcome == CANCELLED:
            # The next request must not pay for the connection that this one has closed.
            task = asyncio.create_task(self._connect_another())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        answer.first_ns = answer.first_ns or answer.done_ns
        if answer.outcome == "ok" and answer.status != 200:
            answer.outcome = error_code(body) or f"http_{answer.status}"
        return answer, body


_NOTHING = bytearray()


class _GivenUp(Exception):
    """The client has what it wanted of a stream."""


class _Connection(asyncio.Protocol):
    """One exchange at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._answer, self._stream, self._pieces = Answer(), False, 0
        self._body = bytearray()
        self._texts: list[str] = []
        self._is_whole = False
        """Whether the stream has said that it is over."""
        self._ends_with_connection = False
        """Whether the body has no length, as of HTTP/1.0."""
        self._done: asyncio.Future[None] | None = None
        self._parser: Any = None

    async def exchange(self, request: bytes, answer: Answer, question: Question) -> bytes:
        """Fill ``answer``, and give the body of one that is no stream. Raises OSError when the connection ends, and
        `_GivenUp`."""
        self._answer, self._stream, self._pieces = answer, question.stream, question.give_up_pieces
        self._body, self._texts = bytearray(), []
        self._is_whole, self._ends_with_connection = False, True
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            await self._done
        finally:
            answer.text = "".join(self._texts)
        return bytes(self._body)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(error)

    def connection_lost(self, error: Exception | None) -> None:
        under_way = self._done is not None and not self._done.done()
        if error is None and under_way and self._answer.status and self._ends_with_connection:
            self.on_message_complete()
        self._end(error if isinstance(error, OSError) else ConnectionResetError("the server closed the connection"))

    def _end(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length" | b"transfer-encoding":
                self._ends_with_connection = False
            case b"x-anywire-transport":
                self._answer.transport = value.decode()
            case b"x-anywire-agent":
                self._answer.agent = value.decode()
            case b"x-anywire-task":
                self._answer.task_id = value.decode()
            case b"x-anywire-attempts":
                self._answer.attempts = min(int(value), 1000)
            case b"x-anywire-origin":
                self._answer.origin = value.decode()

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._body += data
        if self._stream and self._answer.status == 200:
            if b"\r" in data or b"\r" in self._body:
                self._body = self._body.replace(b"\r\n", b"\n")
            *events, rest = self._body.split(b"\n\n")
            self._body = rest
            now = time.monotonic_ns()
            for event in events:
                self._read(event, now)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.transport.close()
        if self._stream and self._answer.status == 200:
            self._read(self._body, time.monotonic_ns())  # the last event may want its empty line
            if self._answer.outcome == "ok" and not self._is_whole:
                self._answer.outcome = "cut"
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _read(self, event: bytearray, now: int) -> None:
        answer = self._answer
        if not event.startswith(b"data:"):
            event = next((line for line in event.split(b"\n") if line.startswith(b"data:")), _NOTHING)
        data = event[5:].strip()
        if data == b"[DONE]":
            self._is_whole = True
        if not data or data == b"[DONE]":
            return
        try:
            said = event_of(data)
        except msgspec.DecodeError:
            answer.outcome = "bad_event"
            return
        if said.error is not None:
            answer.outcome = str(said.error.get("code") or said.error.get("type") or "error")
            answer.origin = str(said.error.get("origin") or "")
        if said.usage is not None:
            answer.tokens = counted(said.usage)
        for choice in said.choices:
            self._is_whole |= choice.finish_reason is not None
            if choice.delta.content:
                answer.first_ns = answer.first_ns or now
                answer.piece_ns.append(now)
                self._texts.append(choice.delta.content)
        if 0 < self._pieces <= len(answer.piece_ns):
            self._end(_GivenUp())
