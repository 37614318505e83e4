"""The gateway as the framework sees it: its settings, its listening socket, its life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from aiohttp import web

from anywire.access import check_keyless
from anywire.access_settings import TlsConfig
from anywire.context import Context
from anywire.errors import ConfigError
from anywire.events import ConfigReloaded
from anywire.gateway import Gateway
from anywire.listening.connection_limit import ConnectionLimit
from anywire.listening.connection_proof import ConnectionProof, proof_of
from anywire.listening.listener import Listener
from anywire.transport_tools import is_loopback
from anywire_gateway_openai.caller import Callers, LastKey
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.endpoint_table import Endpoint
from anywire_gateway_openai.errors import not_http
from anywire_gateway_openai.finishing import FinishingServer
from anywire_gateway_openai.origins import Origins
from anywire_gateway_predecessor.chats import Chats
from anywire_gateway_predecessor.config import PredecessorGatewayConfig
from anywire_gateway_predecessor.finished import Finished
from anywire_gateway_predecessor.registrations import Registrations
from anywire_gateway_predecessor.replies import Failed, failed
from anywire_gateway_predecessor.routes import Routes, own_endpoints
from anywire_gateway_predecessor.transport import PredecessorTransport
from anywire_gateway_predecessor.views import Views

log = logging.getLogger(__name__)

DEFAULT_PORT = 8090
IDLE_S = 75.0
"""Seconds after which a connection is closed on which nothing is asked."""
_CANCEL_S = 1.0
"""How long a cancelled handler may take to tell its task; nothing in one waits for anything."""


class _Protocol(web.RequestHandler):
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
            response = failed(Failed(status, not_http(message), "INVALID_REQUEST"))
        else:
            response = failed(exc if isinstance(exc, Exception) else RuntimeError(message))
        response.force_close()
        return response


class _Server(FinishingServer):
    """The factory of connections. A client that disconnects cancels its handler."""

    def __init__(self, routes: Routes, limit: ConnectionLimit) -> None:
        super().__init__(
            routes, handler_cancellation=True, access_log=None, keepalive_timeout=IDLE_S, auto_decompress=False
        )  # read_body decompresses
        self._limit = limit

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        assert isinstance(handler, _Protocol)
        handler.proof, handler.last_key = proof_of(transport), None
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
        self._listener: Listener | None = None
        self._address = ""
        self._topics: Any = None
        self._callers: Callers | None = None
        self._routes: Routes | None = None

    async def start(self, context: Context) -> None:
        config = self.config
        default = DefaultModel(context, config.model)
        finished = Finished()
        agents = next((each for each in context.transports if isinstance(each, PredecessorTransport)), None)
        self._callers = callers = Callers(context.access, config.trusted_proxies)
        chats = Chats(context, callers, config, default, finished)
        views = Views(context, callers, finished, agents, config.dds is not None)
        limit = ConnectionLimit("the gateway predecessor")
        endpoints = own_endpoints(chats, views, Registrations(agents, callers))
        self._routes = routes = Routes(endpoints, callers, Origins(config.allowed_origins), limit)
        self._server = _Server(routes, limit)
        if config.dds is not None:
            check_keyless(context.access, "predecessor", "DDS", config.keyless)
            self._topics = await _open_topics(context, config, default)
        self._listener = listener = Listener(
            "the gateway predecessor",
            self._server,
            host=config.host,
            port=config.port,
            default_port=DEFAULT_PORT,
            port_key="gateways.predecessor.port (0 takes a free one)",
            tls=config.tls,
        )
        listener.certificate_reloaded = partial(context.events.publish, ConfigReloaded, what="certificate")
        try:
            await listener.open()
        except ConfigError:
            await self.close()
            raise
        self._address = listener.address
        certified = config.tls is not None and config.tls.client_ca is not None
        if not callers.needs_key and not is_loopback(listener.host) and not certified:
            log.warning("the gateway predecessor listens on %s port %d without authentication: whoever reaches it can "
                        "use every agent; host: 127.0.0.1 closes it", listener.host, listener.port)  # fmt: skip

    @property
    def is_local(self) -> bool:
        return super().is_local and (self.config.dds is None or _topics_are_local(self.config.dds))

    async def close(self) -> None:
        """Listen no more, give running requests ``shutdown_grace`` seconds, then cut them off (their tasks are
        cancelled)."""
        topics, self._topics = self._topics, None
        if topics is not None:
            topics.finish()
        listener, self._listener = self._listener, None
        if listener is not None and self._routes is not None:
            await listener.stop()
            self._server.pre_shutdown()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.shutdown_grace):
                    await self._routes.idle()
            await self._server.shutdown(_CANCEL_S / 20)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CANCEL_S):
                    await self._routes.idle()
            await listener.close()
        if topics is not None:
            await topics.close()
        if self._callers is not None:
            self._callers.close()

    @property
    def endpoints(self) -> list[Endpoint]:
        """Everything that is served now; nothing before `start`."""
        return self._routes.endpoints if self._routes is not None else []

    @property
    def address(self) -> str:
        return self._address

    @property
    def tls(self) -> TlsConfig | None:
        return self.config.tls


def _topics_are_local(options: Mapping[str, Any]) -> bool:
    try:
        from anywire_dds.config import LOOPBACK, is_local
    except ImportError:
        return True  # they cannot be opened, as `start` says
    return is_local(str(options.get("interface", LOOPBACK)))


async def _open_topics(context: Context, config: PredecessorGatewayConfig, default: DefaultModel) -> Any:
    try:
        from anywire_gateway_predecessor.topics import Topics
    except ImportError as error:
        raise ConfigError(
            f"the option dds of the gateway predecessor needs anywire-dds: pip install anywire-dds ({error})"
        ) from error
    return Topics(context, config, default)
