"""aiohttp's server, told to answer in OpenAI's form even where no handler is reached."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web

from anywire.errors import InvalidRequest
from anywire.listening.connection_limit import ConnectionLimit
from anywire.listening.connection_proof import ConnectionProof, proof_of
from anywire_gateway_openai.caller import LastKey
from anywire_gateway_openai.errors import as_anywire, error_response, not_http
from anywire_gateway_openai.finishing import FinishingServer
from anywire_gateway_openai.request_ids import HEADER, request_id
from anywire_gateway_openai.routes import Routes

log = logging.getLogger(__name__)


class OpenAIProtocol(web.RequestHandler):
    """One connection. ``proof`` is what it proves of its client, once it is made, ``last_key`` the key shown on it."""

    __slots__ = ("last_key", "proof")
    proof: ConnectionProof
    last_key: LastKey | None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called for what is no HTTP: the connection is closed after the answer."""
        if status < 500:
            what = not_http(message)
            log.debug("%s: %s", request.remote, what)
            response = error_response(InvalidRequest(what))
        else:
            response = error_response(as_anywire(exc if isinstance(exc, Exception) else RuntimeError(message)))
        response.headers[HEADER] = request_id(None)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Called for what is wrong behind a handler. That a body which no handler wanted cannot be read is its client's
        fault, and the connection is closed."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            log.debug("a body that was not wanted cannot be read: %s", kw["exc_info"])
        else:
            super().log_exception(*args, **kw)


class OpenAIServer(FinishingServer):
    """The factory of connections. A client that disconnects cancels its handler."""

    def __init__(self, routes: Routes, limit: ConnectionLimit, idle_timeout: float) -> None:
        super().__init__(
            routes, handler_cancellation=True, access_log=None, keepalive_timeout=idle_timeout, auto_decompress=False
        )  # content_coding does
        self._limit = limit

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        assert isinstance(handler, OpenAIProtocol)
        handler.proof, handler.last_key = proof_of(transport), None
        self._limit.opened(transport, handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._limit.lost(handler)
        super().connection_lost(handler, exc)

    def __call__(self) -> web.RequestHandler:
        return OpenAIProtocol(self, loop=self._loop, **self._kwargs)
