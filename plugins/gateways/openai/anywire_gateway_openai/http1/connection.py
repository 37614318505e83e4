"""One connection of a client: its requests one after another, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Protocol

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.tcp_helpers import tcp_keepalive

from anywire.known_head import KnownHead
from anywire.listening.connection_proof import ConnectionProof, proof_of
from anywire_gateway_openai.caller import LastKey
from anywire_gateway_openai.errors import as_anywire, error_response
from anywire_gateway_openai.http1.head import MAX_HEAD_BYTES, Head, HeadReader, with_length
from anywire_gateway_openai.http1.request import ServedRequest
from anywire_gateway_openai.http1.whole_body import WholeBody
from anywire_gateway_openai.request_ids import HEADER, request_id
from anywire_gateway_openai.wire import WrittenResponse

log = logging.getLogger(__name__)

MAX_AHEAD_BYTES = 64 * 1024
"""Of requests that a client sends before the answer to the one before; what is more stays in its system."""
BODY_BYTES = 64 * 1024
"""Of a body that wait for their handler; twice as many stop the reading."""
LINGER_S = 10.0
"""Seconds for which the rest of a body that no handler wanted is read and thrown away, as by aiohttp."""
_END = b"\r\n\r\n"


class Owner(Protocol):
    """What a connection belongs to."""

    @property
    def handler(self) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]: ...
    @property
    def idle_timeout(self) -> float: ...

    def opened(self, connection: Connection, transport: asyncio.Transport) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def hand_over(self, connection: Connection, transport: asyncio.Transport, data: bytes) -> None: ...


class Connection(BaseProtocol):
    """Serves requests whose head says all: their method is known, and their body has a length. At the first other one,
    or at what is no HTTP, the connection is given to aiohttp's server with all that has come of it.

    A client that disconnects cancels its handler. ``proof`` is what the connection proves of its client, once it is
    made, ``last_key`` the key shown on it.
    """

    __slots__ = (
        "_ahead",
        "_ahead_at",
        "_context",
        "_head",
        "_idle_until",
        "_is_known",
        "_is_last",
        "_known",
        "_missing",
        "_owner",
        "_peer",
        "_reader",
        "_request",
        "_timer",
        "_tls",
        "last_key",
        "proof",
        "task",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._owner, self._reader, self._known = owner, HeadReader(), KnownHead[Head]()
        self._head = b""
        """What has come of a head that is not complete."""
        self._request: ServedRequest | None = None
        self._is_known = False
        """Whether its head was known, so that the parser has seen nothing of it."""
        self._missing = 0
        """Bytes that are still to come of its body."""
        self.task: asyncio.Task[None] | None = None
        """What answers it."""
        self._ahead, self._ahead_at = b"", 0
        """What has come behind it, and where in it the next request begins."""
        self._is_last = False
        """Whether no further request is served."""
        self._context = copy_context()
        """Each request runs in a copy of it, and sees nothing that one before it has set."""
        self._idle_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.proof: ConnectionProof
        self.last_key: LastKey | None = None

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        tcp_keepalive(self.transport)
        self.proof = proof_of(transport)
        self._peer, self._tls = transport.get_extra_info("peername"), transport.get_extra_info("sslcontext")
        self._await_request()
        self._owner.opened(self, self.transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._owner.lost(self)
        self._is_last = True
        self._forget()
        super().connection_lost(exc)
        if self._missing and self._request is not None:
            self._request.content.set_exception(exc or ConnectionResetError("Connection lost"))
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._request is not None:
            self._go_on(data)
        elif self._ahead:
            self._keep(data)
        elif not self._is_last:
            self._begin(self._head + data if self._head else data, 0)

    # Called by bodies that are read

    def pause_reading(self) -> None:
        self._reading_paused = True
        self._pause_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if not self._buffer_paused:
                self._resume_transport_reading()

    # Called by the owner

    def finish(self) -> None:
        """Serve no further request: close the connection when the one under way is answered, or now."""
        self._is_last = True
        if self._request is None and self.transport is not None:
            self.transport.close()

    def end(self) -> None:
        """Cancel what answers, and close the connection."""
        self._is_last = True
        if self.task is not None:
            self.task.cancel()
        if self.transport is not None:
            self.transport.close()

    # Requests

    def _begin(self, data: bytes, at: int) -> None:
        """Go on with a request that begins at ``at``."""
        seen = at + len(self._head)
        end = data.find(_END, max(seen - 3, at)) + 4
        if end < 4:
            begun = data[at:]
            if len(begun) > MAX_HEAD_BYTES or not self._reader.read(data[seen:]):
                self._hand_over(begun)
            else:
                self._head = begun
            return
        raw = data[at:end]
        head = None
        length = self._known.length_of(raw) if seen == at else None
        self._is_known = length is not None
        if length is not None:
            assert self._known.read is not None
            head = with_length(self._known.read, length)
        else:
            if end - at <= MAX_HEAD_BYTES and self._reader.read(data[seen:end]):
                head = self._reader.head(raw.count(b"\n"))
            if head is None:
                self._hand_over(data[at:] if at else data)
                return
            if head.keep_alive:
                self._known.remember(raw, head.body_bytes, head)
        self._head = b""
        until = end + head.body_bytes
        come = data[end:until]
        self._missing = head.body_bytes - len(come)
        if come and not self._is_known:
            self._reader.pass_over(come)
        body: WholeBody | StreamReader
        if self._missing:
            body = StreamReader(self, BODY_BYTES, loop=self._loop)
            body.feed_data(come)
        else:
            body = WholeBody(come)
            if len(data) > until:
                self._ahead, self._ahead_at = (data, until) if head.keep_alive else (b"", 0)
        self._request = request = ServedRequest(head, body, self, self._loop, self._peer, self._tls)
        task = _started(self._loop, self._serve(request), self._context.copy())
        if self._request is request:
            self.task = task  # it may have begun at once, and ended

    def _go_on(self, data: bytes) -> None:
        """Take what comes while a request is answered: the rest of its body, and what is ahead."""
        if self._missing:
            piece = data[: self._missing]
            if not self._is_known:
                self._reader.pass_over(piece)
            self._missing -= len(piece)
            assert self._request is not None
            body = self._request.content
            body.feed_data(piece)
            if self._missing:
                return
            body.feed_eof()
            data = data[len(piece) :]
        if data:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        """Keep what has come ahead. Behind a request that is the last nothing counts."""
        if self._is_last or (self._request is not None and not self._request.keep_alive):
            return
        self._ahead, self._ahead_at = self._ahead[self._ahead_at :] + data, 0
        if len(self._ahead) > MAX_AHEAD_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _next(self) -> None:
        """Begin with what has come ahead."""
        data, at = self._ahead, self._ahead_at
        self._ahead, self._ahead_at = b"", 0
        if self.transport is None or self._is_last:
            return
        self._begin(data, at)
        if self._buffer_paused and len(self._ahead) - self._ahead_at <= MAX_AHEAD_BYTES:
            self._resume_reading_for_buffer()

    async def _serve(self, request: ServedRequest) -> None:
        keep_alive = False
        try:
            response = await self._owner.handler(request)
            if not isinstance(response, WrittenResponse):
                await response.prepare(request)
                await response.write_eof()
            keep_alive = bool(response.keep_alive)
            if self._missing and self.transport is not None:
                await self._pass_over(request)
                keep_alive = keep_alive and not self._missing
        except ConnectionError as error:
            log.debug("a client went away: %s", error)
        except Exception as error:
            await self._fail(request, error)
        finally:
            self._answered(keep_alive)

    async def _pass_over(self, request: ServedRequest) -> None:
        """Read what no handler wanted of a body: answers to clients that are still sending would be lost with it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._missing:
                    await request.content.readany()

    async def _fail(self, request: ServedRequest, error: Exception) -> None:
        """Answer a fault behind the handler, which answers its own. Where a part of its answer is out, the end of the
        connection tells that it is not whole."""
        response = error_response(as_anywire(error))
        if request.writer.output_size:
            return
        response.headers[HEADER] = request_id(None)
        response.force_close()
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await response.write_eof()

    def _answered(self, keep_alive: bool) -> None:
        self._request = self.task = None
        if self.transport is None:
            return
        if self._is_last or not keep_alive:
            self._is_last = True
            self.transport.close()
        else:
            self._await_request()
            if self._ahead:
                self._loop.call_soon(self._next)

    # Waiting

    def _await_request(self) -> None:
        self._idle_until = self._loop.time() + self._owner.idle_timeout
        if self._timer is None:
            self._timer = self._loop.call_at(self._idle_until, self._look, context=self._context)

    def _look(self) -> None:
        """Close a connection that has waited too long for a request, or for the rest of its head."""
        self._timer = None
        if self._request is not None or self.transport is None:
            return
        if self._loop.time() < self._idle_until:
            self._timer = self._loop.call_at(self._idle_until, self._look, context=self._context)
        else:
            self._is_last = True
            self.transport.close()

    # The end

    def _hand_over(self, data: bytes) -> None:
        transport = self.transport
        assert transport is not None
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        self.transport = None
        self._forget()
        self._context.run(self._owner.hand_over, self, transport, data)

    def _forget(self) -> None:
        """What would keep this object."""
        self._reader.close()
        self._ahead, self._head = b"", b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _started(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
    """A task for ``work`` in ``context``, which begins at once where Python can do that."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, context=context, eager_start=True)
    return loop.create_task(work, context=context)
