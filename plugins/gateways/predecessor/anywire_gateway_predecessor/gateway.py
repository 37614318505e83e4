"""The gateway as the framework sees it: its settings, its listening socket, its life."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from typing import Any, ClassVar

from aiohttp import web

from anywire.connection_limit import ConnectionLimit
from anywire.context import Context
from anywire.errors import ConfigError
from anywire.gateway import Gateway
from anywire.transport_tools import is_loopback
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.origins import Origins
from anywire_gateway_predecessor.chats import Chats
from anywire_gateway_predecessor.config import PredecessorGatewayConfig
from anywire_gateway_predecessor.finished import Finished
from anywire_gateway_predecessor.registrations import Registrations
from anywire_gateway_predecessor.replies import Failed, failed
from anywire_gateway_predecessor.routes import Routes
from anywire_gateway_predecessor.transport import PredecessorTransport
from anywire_gateway_predecessor.views import Views

log = logging.getLogger(__name__)

BACKLOG = 1024
DEFAULT_PORT = 8090
IDLE_S = 75.0
"""Seconds after which a connection is closed on which nothing is asked."""
_CANCEL_S = 1.0
"""How long a cancelled handler may take to tell its task; nothing in one waits for anything."""


class _Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called for what is no HTTP: the connection is closed after the answer."""
        if status < 500:
            what = (message or "bad request").partition("\n")[0].rstrip(":")
            response = failed(Failed(status, f"this is not HTTP as it should be: {what}", "INVALID_REQUEST"))
        else:
            response = failed(exc if isinstance(exc, Exception) else RuntimeError(message))
        response.force_close()
        return response


class _Server(web.Server):
    """The factory of connections. A client that disconnects cancels its handler."""

    def __init__(self, routes: Routes, limit: ConnectionLimit) -> None:
        super().__init__(
            routes, handler_cancellation=True, access_log=None, keepalive_timeout=IDLE_S, auto_decompress=False
        )  # read_body decompresses
        self._limit = limit

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._limit.opened(transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        if handler.transport is not None:
            self._limit.closed(handler.transport)
        super().connection_lost(handler, exc)

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class PredecessorGateway(Gateway):
    name: ClassVar[str] = "predecessor"
    Config = PredecessorGatewayConfig
    config: PredecessorGatewayConfig

    def __init__(self, config: PredecessorGatewayConfig) -> None:
        super().__init__(config)
        self._listening: asyncio.Server | None = None
        self._address = ""
        self._topics: Any = None

    async def start(self, context: Context) -> None:
        config = self.config
        default = DefaultModel(context, config.model)
        finished = Finished()
        agents = next((each for each in context.transports if isinstance(each, PredecessorTransport)), None)
        chats = Chats(context, config, default, finished)
        views = Views(context, finished, agents, config.dds is not None)
        limit = ConnectionLimit("the gateway predecessor")
        self._routes = Routes(chats, views, Registrations(agents), Origins(config.allowed_origins), limit)
        self._server = _Server(self._routes, limit)
        if config.dds is not None:
            self._topics = await _open_topics(context, config, default)
        try:
            self._listening = await self._listen()
        except ConfigError:
            await self.close()
            raise
        host, port = self._listening.sockets[0].getsockname()[:2]
        if not is_loopback(host):
            log.warning("the gateway predecessor listens on %s port %d without authentication: whoever reaches it can "
                        "use every agent; host: 127.0.0.1 closes it", host, port)  # fmt: skip
        self._address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def _listen(self) -> asyncio.Server:
        """Listen on the port that is set, or else on the usual one or any. Raises `ConfigError`."""
        loop, host, port = asyncio.get_running_loop(), self.config.host, self.config.port
        wanted = DEFAULT_PORT if port is None else port
        try:
            return await loop.create_server(self._server, host, wanted, backlog=BACKLOG)
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                raise ConfigError(
                    f"the gateway predecessor cannot listen on {host} port {wanted}: {error}; set another port "
                    "(0 takes a free one) or an address of this machine"
                ) from error
        log.info("port %d of %s is taken: another one is used", DEFAULT_PORT, host)
        return await loop.create_server(self._server, host, 0, backlog=BACKLOG)

    async def close(self) -> None:
        """Listen no more, give running requests ``shutdown_grace`` seconds, then cut them off (their tasks are
        cancelled)."""
        topics, self._topics = self._topics, None
        if topics is not None:
            topics.finish()
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
            # Connections accepted a moment ago begin their requests first.
            await asyncio.sleep(0)
            self._server.pre_shutdown()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.shutdown_grace):
                    await self._routes.idle()
            await self._server.shutdown(_CANCEL_S / 20)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CANCEL_S):
                    await self._routes.idle()
        if topics is not None:
            await topics.close()

    @property
    def address(self) -> str:
        return self._address


async def _open_topics(context: Context, config: PredecessorGatewayConfig, default: DefaultModel) -> Any:
    try:
        from anywire_gateway_predecessor.topics import Topics
    except ImportError as error:
        raise ConfigError(
            f"the option dds of the gateway predecessor needs anywire-dds: pip install anywire-dds ({error})"
        ) from error
    return Topics(context, config, default)
