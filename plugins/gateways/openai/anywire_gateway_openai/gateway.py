"""The gateway as the framework sees it: its settings, its listening socket, its life."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from typing import Annotated, ClassVar

import pydantic

from anywire.connection_limit import ConnectionLimit
from anywire.context import Context
from anywire.core_settings import FromCore
from anywire.errors import ConfigError
from anywire.gateway import Gateway
from anywire.request_log import RequestLog
from anywire_gateway_openai.body import BodyRoom
from anywire_gateway_openai.catalogue import CatalogueHandlers
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.event_streams import EventHandler
from anywire_gateway_openai.metrics import Metrics
from anywire_gateway_openai.origins import Origins, checked_origin
from anywire_gateway_openai.pace import Pace
from anywire_gateway_openai.protocol import OpenAIServer
from anywire_gateway_openai.registration import RegistrationHandler
from anywire_gateway_openai.routes import Routes
from anywire_gateway_openai.service_routes import ServiceRoutes
from anywire_gateway_openai.task_views import TaskViewHandlers
from anywire_gateway_openai.tasks import TaskHandlers
from anywire_gateway_openai.websocket import ChatSockets

log = logging.getLogger(__name__)

BACKLOG = 1024
DEFAULT_PORT = 8080
"""Where it listens when no port is set and this one is free."""
_CANCEL_S = 1.0
"""How long a cancelled handler may take to tell its task; nothing in one waits for anything."""


class OpenAIGatewayConfig(pydantic.BaseModel):
    """Times in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    host: Annotated[str, FromCore("server.host")] = pydantic.Field(
        default="127.0.0.1", min_length=1, description="Address to listen on."
    )
    port: Annotated[int | None, FromCore("server.port")] = pydantic.Field(
        default=None,
        ge=0,
        le=65535,
        description="Port to listen on, 0 for any that is free. Default: 8080, or any that is free when that is taken.",
    )
    max_body_bytes: Annotated[int, FromCore("pipeline.max_body_bytes")] = pydantic.Field(
        default=32 * 1024 * 1024,
        ge=1024,
        description="Bytes of the largest request; larger ones are refused (413).",
    )
    model: str = pydantic.Field(
        default="",
        description="Model of a request that names none. Default: the one that is served, where there is only one.",
    )
    max_bodies_bytes: int = pydantic.Field(
        default=256 * 1024 * 1024,
        ge=1024,
        description="Bytes of all requests under way together; further ones are told to come back (503).",
    )
    allowed_origins: list[str] = pydantic.Field(
        default_factory=list, description="Origins of web pages elsewhere that may use the gateway. `*`: every page."
    )
    idle_timeout: float = pydantic.Field(
        default=75.0,
        gt=0,
        description="Seconds after which a connection without a request, or with half of a request's head, is closed.",
    )
    body_timeout: float = pydantic.Field(
        default=60.0, gt=0, description="Seconds in which a request's body must arrive, else 408."
    )
    write_timeout: float = pydantic.Field(
        default=60.0, gt=0, description="Seconds that a client may take nothing of its answer before it is cut off."
    )
    heartbeat: float = pydantic.Field(
        default=30.0,
        gt=0,
        description="Seconds of silence after which a WebSocket client is pinged, and an event stream gets a comment.",
    )
    keep_alive: float = pydantic.Field(
        default=15.0,
        ge=0,
        description="Seconds of silence after which a streamed answer gets a comment, also before its first token. "
        "0: never.",
    )
    log_requests: Annotated[bool, FromCore("log_requests")] = pydantic.Field(
        default=True, description="Log a line for each request that asked for an answer, or failed."
    )
    shutdown_grace: Annotated[float, FromCore("shutdown_grace")] = pydantic.Field(
        default=10.0, ge=0, description="Seconds that running requests get at close."
    )

    @pydantic.field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        return [checked_origin(each) for each in origins]


class OpenAIGateway(Gateway):
    name: ClassVar[str] = "openai"
    Config = OpenAIGatewayConfig
    config: OpenAIGatewayConfig

    def __init__(self, config: OpenAIGatewayConfig) -> None:
        super().__init__(config)
        self._server: OpenAIServer | None = None
        self._routes: Routes | None = None
        self._sockets: ChatSockets | None = None
        self._metrics: Metrics | None = None
        self._listening: asyncio.Server | None = None
        self._address = ""

    async def start(self, context: Context) -> None:
        config = self.config
        self._metrics = metrics = Metrics(context)
        default_model = DefaultModel(context, config.model)
        room = BodyRoom(max(config.max_bodies_bytes, config.max_body_bytes))
        tasks = TaskHandlers(
            context,
            default_model,
            max_body_bytes=config.max_body_bytes,
            body_timeout=config.body_timeout,
            write_timeout=config.write_timeout,
            keep_alive=config.keep_alive,
            room=room,
        )
        requests = RequestLog(config.log_requests)
        self._sockets = ChatSockets(
            context,
            metrics,
            default_model,
            requests,
            max_body_bytes=config.max_body_bytes,
            write_timeout=config.write_timeout,
            heartbeat=config.heartbeat,
            room=room,
        )
        origins = Origins(config.allowed_origins)
        limit = ConnectionLimit("the OpenAI gateway")
        patience = {"write_timeout": config.write_timeout, "heartbeat": config.heartbeat}
        self._routes = Routes(
            tasks,
            TaskViewHandlers(context, **patience),
            EventHandler(context, **patience),
            CatalogueHandlers(context),
            RegistrationHandler(context),
            self._sockets,
            metrics,
            origins,
            ServiceRoutes(context.routes, body_timeout=config.body_timeout, write_timeout=config.write_timeout),
            limit,
            requests,
            Pace(context),
        )
        self._server = OpenAIServer(self._routes, limit, config.idle_timeout)
        self._listening = await self._listen(self._server)
        host, port = self._listening.sockets[0].getsockname()[:2]
        if not ipaddress.ip_address(host).is_loopback:
            log.warning("the OpenAI gateway listens on %s port %d without authentication: whoever reaches it can "
                        "use every agent (`server.host: 127.0.0.1`, or --host, closes it)", host, port)  # fmt: skip
        self._address = f"http://{_reachable(host)}:{port}"

    async def close(self) -> None:
        """Listen no more, give running requests ``shutdown_grace`` seconds, then cut them off (their tasks are
        cancelled)."""
        if self._listening is None or self._server is None or self._routes is None:
            return
        listening, self._listening = self._listening, None
        listening.close()
        # Connections accepted a moment ago begin their requests first.
        await asyncio.sleep(0)
        self._server.pre_shutdown()
        if self._sockets is not None:
            self._sockets.finish()
        cut_off = []
        try:
            async with asyncio.timeout(self.config.shutdown_grace):
                await self._routes.idle()
        except TimeoutError:
            log.warning("requests still run after %g s and are cut off", self.config.shutdown_grace)
            cut_off = [connection.transport for connection in self._server.connections]
        await self._server.shutdown(_CANCEL_S / 20)
        for transport in cut_off:
            if transport is not None:
                transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                await self._routes.idle()
        if self._metrics is not None:
            self._metrics.close()

    async def _listen(self, server: OpenAIServer) -> asyncio.Server:
        """Listen on the port that is set, or else on the usual one or any. Raises `ConfigError`."""
        loop, host, port = asyncio.get_running_loop(), self.config.host, self.config.port
        try:
            return await loop.create_server(server, host, DEFAULT_PORT if port is None else port, backlog=BACKLOG)
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                raise _cannot_listen(host, DEFAULT_PORT if port is None else port, error) from error
        log.info("port %d of %s is taken: another one is used", DEFAULT_PORT, host)
        return await loop.create_server(server, host, 0, backlog=BACKLOG)

    @property
    def address(self) -> str:
        return self._address


def _reachable(host: str) -> str:
    """An address a client on this machine can use."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"[{address}]" if address.version == 6 else str(address)


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    where = f"the OpenAI gateway cannot listen on {host} port {port}"
    if isinstance(error, socket.gaierror):
        return ConfigError(f"{where}: the host name is not known; set host to an address of this machine")
    match error.errno:
        case errno.EADDRINUSE:
            what = "another process uses it; stop that one or set another server.port (--port; 0 takes a free one)"
        case errno.EACCES | errno.EPERM:
            what = "permission denied; set a port of 1024 or above, or give the process CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            what = "no interface of this machine has that address; set host to one, or to 127.0.0.1"
        case _:
            what = str(error)
    return ConfigError(f"{where}: {what}")
