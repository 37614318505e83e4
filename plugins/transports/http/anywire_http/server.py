"""The HTTP server both ends use: the first free address, the token, and one function per route."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pydantic
from aiohttp import web
from yarl import URL

from anywire.clock import SystemClock
from anywire.errors import PayloadTooLarge
from anywire.lease import AwakeTime
from anywire.listening.connection_limit import ConnectionLimit
from anywire.messages import TaskRequest
from anywire.transport import Plane
from anywire.transport_tools import EndCertificate, OnceLog, none_is_free, stop_accepting
from anywire.transport_tools.timeouts import awake_timeout
from anywire.web_pages import header_of_page
from anywire_http.config import HttpConfig, is_local
from anywire_http.faults import mapped
from anywire_http.wire import (
    ENVELOPE_BYTES,
    JSON,
    LENGTH_DIGITS,
    TEXT_HEADER,
    T,
    decode,
    decode_task,
    encoded_limit,
    fault,
)

log = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections the kernel may accept before this process does: every task in flight has its own."""

CLOSING_S = 0.1
"""How long connections that ought to be idle are waited for."""

IDLE_S = 75.0
"""Seconds after which a connection without a request, or with half of a request's head, is closed: longer than clients
of this transport keep one (`anywire_http.client.IDLE_S`)."""

BODY_S = 60.0
"""Seconds of awake time in which a request's body must arrive."""

HANDSHAKE_S = 15.0
"""Seconds that a TLS handshake may take: a fleet that comes back makes hundreds at once."""

PART_S = 2.0
"""Seconds in which the other end may agree that a connection with TLS ends."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class TokenCheck:
    """Checks the token of requests, in constant time, and logs once for each peer that it was refused."""

    def __init__(self, token: pydantic.SecretStr | None, me: str) -> None:
        self._me = me
        self._expected = None if token is None else f"Bearer {token.get_secret_value()}".encode()
        self._once = OnceLog(log)

    def refusal(self, authorization: str | None, peer: str) -> str:
        """Why a request with this ``Authorization`` header is not served; empty when it is."""
        given = (authorization or "").encode("utf-8", "surrogateescape")
        if self._expected is None or hmac.compare_digest(given, self._expected):
            return ""
        what = "a wrong token" if authorization else "no token"
        self._once.warn((peer, what), "%s refused a request from %s: it came with %s", self._me, peer, what)
        return f"the request came with {what}: set the same `token` at both ends"


class TooLarge(Exception):
    """A request body over the limit."""


class _Connection(web.RequestHandler):
    __slots__ = ()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Called for what is wrong behind a handler. That a body which no handler wanted cannot be read is the fault of
        its sender, and the connection is closed."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            log.debug("a body that was not wanted cannot be read: %s", kw["exc_info"])
        else:
            super().log_exception(*args, **kw)


class _Connections(web.Server):
    """aiohttp's server, with a limit of connections."""

    def __init__(self, handler: Handler, limit: ConnectionLimit, **settings: Any) -> None:
        # The low-level server: there are a few routes and no middleware. A handler is cancelled when its peer goes.
        super().__init__(handler, handler_cancellation=True, access_log=None, keepalive_timeout=IDLE_S, **settings)
        self._limit = limit
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}

    def abort(self) -> None:
        """End the connections that are left at once: one with TLS would wait for its peer to agree."""
        for transport in list(self._open.values()):
            transport.abort()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._limit.opened(transport, handler)
        self._open[handler] = transport

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._limit.lost(handler)
        self._open.pop(handler, None)
        super().connection_lost(handler, exc)

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Server:
    """``routes`` maps ``(method, path)`` to what answers. With a ``certificate`` it speaks TLS. ``protected`` is
    whether something else than the token says who may do what."""

    def __init__(
        self,
        config: HttpConfig,
        me: str,
        routes: Mapping[tuple[str, str], Handler],
        *,
        certificate: EndCertificate | None = None,
        protected: bool = False,
    ) -> None:
        self._config, self._routes, self._protected = config, routes, protected
        self._tls = certificate.server_context() if certificate is not None else None
        self._tokens = TokenCheck(config.token, me)
        self._once = OnceLog(log)
        self._me = me
        self._prefix = ""
        self._limit = encoded_limit(config.max_message_bytes)
        self._server: asyncio.Server | None = None
        self._awake = AwakeTime(SystemClock())
        self.connections = ConnectionLimit(me)
        self._web = _Connections(self._answer, self.connections, request_factory=self._request)

    async def listen(self, addresses: list[str], plane: Plane = "agent") -> str:
        """Listen on the first free address and return it, with the real port. ``plane`` is the one that they belong to.
        Raises `TransportUnavailable`."""
        loop, reasons = asyncio.get_running_loop(), []
        for address in addresses:
            url = URL(address)
            if url.scheme == "https":
                reasons.append(f"{address}: TLS belongs to a proxy in front, listen on http:// behind it")
                continue
            try:
                self._server = await loop.create_server(
                    self._web,
                    url.host,
                    url.port or 0,
                    backlog=BACKLOG,
                    ssl=self._tls,
                    ssl_handshake_timeout=HANDSHAKE_S if self._tls is not None else None,
                    ssl_shutdown_timeout=PART_S if self._tls is not None else None,
                )
            except (OSError, UnicodeError) as error:
                reasons.append(f"{address}: {mapped(error, 'cannot listen')}")
                continue
            self._prefix = url.path.rstrip("/")
            bound = str(url.with_port(self._server.sockets[0].getsockname()[1])).rstrip("/")
            if self._config.token is None and not self._protected and not is_local(bound):
                log.warning("%s is open to the network and not protected: whoever reaches it can join and ask "
                            "(set identity.key and identity.admitted, or for transports.http set a token, or name a "
                            "loopback address)", bound)  # fmt: skip
            return bound
        raise none_is_free(reasons, "http", plane)

    async def close(self) -> None:
        """Accept nothing any more and end every connection."""
        server, self._server = self._server, None
        if server is None:
            return
        await stop_accepting(server)
        self._web.pre_shutdown()
        await self._web.shutdown(CLOSING_S)
        if self._tls is not None:
            self._web.abort()
            await asyncio.sleep(0)
        await server.wait_closed()

    async def body(self, request: web.BaseRequest, cls: type[T]) -> T:
        """The body as a message. Raises as `read` does, or `msgspec.MsgspecError`."""
        return decode(await self.read(request), cls)

    async def task(self, request: web.BaseRequest) -> TaskRequest:
        """The body as a task. Raises as `body` does."""
        data = await self.read(request)
        length = request.headers.get(TEXT_HEADER, "0")
        if not (length.isascii() and length.isdecimal() and len(length) <= LENGTH_DIGITS):
            raise msgspec.DecodeError(f"{TEXT_HEADER} is no length: {length[:40]!r}")
        return await decode_task(data, int(length))

    async def read(self, request: web.BaseRequest) -> bytes:
        """The body. Raises `TooLarge`, or `TimeoutError` when it has not arrived in `BODY_S` seconds."""
        try:
            if request.content.is_eof():  # mostly it came with the head
                return await request.read()
            async with awake_timeout(self._awake, BODY_S):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            limit = self._limit_of(request.path)
            raise TooLarge(f"the body of {request.path} is over this end's limit of {limit} bytes") from error

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.transport
        self.connections.begun(connection, request.content)
        try:
            return await self._serve(request)
        finally:
            self.connections.ended(connection)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = self._routes.get((request.method, request.path.removeprefix(self._prefix)))
        if handler is None:
            return fault(404, f"{self._me} has no {request.method} {request.path}")
        peer = request.remote or "unknown"
        from_page = _why_web_page(request)
        if from_page:
            self._once.warn((peer, from_page), "%s refused a request from %s: %s", self._me, peer, from_page[1])
            return fault(*from_page)
        refusal = self._tokens.refusal(request.headers.get("Authorization"), peer)
        if refusal:
            return fault(401, refusal)
        try:
            return await handler(request)
        except (TooLarge, PayloadTooLarge) as error:
            return fault(413, str(error))
        except TimeoutError:
            response = fault(408, f"the body of {request.path} has not arrived within {BODY_S:.0f} s")
            response.force_close()
            return response
        except (msgspec.MsgspecError, web.RequestPayloadError) as error:
            return fault(400, str(mapped(error, f"the body of {request.path} cannot be read")))

    def _request(
        self, message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        limit = self._limit_of(message.path)
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)

    def _limit_of(self, path: str) -> int:
        """Bytes that a body may have: those that are sent on a link carry more than those that introduce
        themselves."""
        return self._limit if path.endswith(("/tasks", "/commands", "/control")) else ENVELOPE_BYTES


def _why_web_page(request: web.BaseRequest) -> tuple[int, str] | None:
    """Status and text for a request that a web page in a browser may have made; None for any other.

    A browser asks before it sends JSON to another address.
    """
    if name := header_of_page(request.headers):
        return 403, f"it has the header {name}: this address is for agents and orchestrators, not for web pages"
    if request.method == "POST" and request.content_type != JSON:
        return 415, f"the request must have Content-Type: {JSON}"
    return None
