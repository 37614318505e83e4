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

from anywire.errors import PayloadTooLarge, TransportUnavailable
from anywire.transport_tools import OnceLog
from anywire_http.config import HttpConfig, is_local
from anywire_http.faults import mapped
from anywire_http.wire import ENVELOPE_BYTES, JSON, T, decode, encoded_limit, fault

log = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections the kernel may accept before this process does: every task in flight has its own."""

CLOSING_S = 0.1
"""How long connections that ought to be idle are waited for."""

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


class Server:
    """``routes`` maps ``(method, path)`` to what answers."""

    def __init__(self, config: HttpConfig, me: str, routes: Mapping[tuple[str, str], Handler]) -> None:
        self._config, self._routes = config, routes
        self._tokens = TokenCheck(config.token, me)
        self._once = OnceLog(log)
        self._me = me
        self._prefix = ""
        self._limit = encoded_limit(config.max_message_bytes)
        self._server: asyncio.Server | None = None
        # The low-level server: there are a few routes and no middleware. A handler is cancelled when its peer goes.
        self._web = web.Server(self._serve, request_factory=self._request, handler_cancellation=True, access_log=None)

    async def listen(self, addresses: list[str]) -> str:
        """Listen on the first free address and return it, with the real port. Raises `TransportUnavailable`."""
        loop, reasons = asyncio.get_running_loop(), []
        for address in addresses:
            url = URL(address)
            if url.scheme == "https":
                reasons.append(f"{address}: TLS belongs to a proxy in front, listen on http:// behind it")
                continue
            try:
                self._server = await loop.create_server(self._web, url.host, url.port or 0, backlog=BACKLOG)
            except (OSError, UnicodeError) as error:
                reasons.append(f"{address}: {mapped(error, 'cannot listen')}")
                continue
            self._prefix = url.path.rstrip("/")
            bound = str(url.with_port(self._server.sockets[0].getsockname()[1])).rstrip("/")
            if self._config.token is None and not is_local(bound):
                log.warning("%s is open to the network and not protected: set a token", bound)
            return bound
        raise TransportUnavailable(f"no address to listen on is free: {'; '.join(reasons)}. Name another one as well")

    async def close(self) -> None:
        """Accept nothing any more and end every connection."""
        if self._server is None:
            return
        self._server.close()
        self._web.pre_shutdown()
        await self._web.shutdown(CLOSING_S)
        await self._server.wait_closed()
        self._server = None

    async def body(self, request: web.BaseRequest, cls: type[T]) -> T:
        """The body as a message. Raises `TooLarge`, or `msgspec.MsgspecError`."""
        return decode(await self.read(request), cls)

    async def read(self, request: web.BaseRequest) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            limit = self._limit_of(request.path)
            raise TooLarge(f"the body of {request.path} is over this end's limit of {limit} bytes") from error

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

    A browser sends `Origin` with every request that a page makes to another address, and asks before it sends JSON.
    """
    if "Origin" in request.headers:
        return 403, "the request has an Origin header: this address is for agents and orchestrators, not for web pages"
    if request.method == "POST" and request.content_type != JSON:
        return 415, f"the request must have Content-Type: {JSON}"
    return None
