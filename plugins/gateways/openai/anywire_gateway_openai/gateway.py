"""The gateway as the framework sees it: its settings, its listening socket, its life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Self

import pydantic

from anywire.access_settings import TlsConfig
from anywire.context import Context
from anywire.core_settings import FromCore
from anywire.events import ConfigReloaded
from anywire.gateway import Gateway, PassesOn
from anywire.listening.connection_limit import ConnectionLimit
from anywire.listening.listener import Listener
from anywire.metric import Metric
from anywire.request_log import RequestLog
from anywire.transport_tools import is_loopback
from anywire_gateway_openai.agent_commands import AgentCommandHandler
from anywire_gateway_openai.agent_orders import AgentOrderHandlers
from anywire_gateway_openai.anthropic.handlers import MessageHandlers
from anywire_gateway_openai.background import BackgroundHandlers
from anywire_gateway_openai.body import BodyRoom
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.catalogue import CatalogueHandlers
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.endpoint_table import BASES, Endpoint, own_endpoints
from anywire_gateway_openai.event_streams import EventHandler
from anywire_gateway_openai.http1.server import HttpServer
from anywire_gateway_openai.idempotency import KeptAnswers
from anywire_gateway_openai.metrics import Metrics
from anywire_gateway_openai.ollama.catalogue import OllamaCatalogue
from anywire_gateway_openai.ollama.handlers import OllamaHandlers
from anywire_gateway_openai.openapi.handler import ApiDescription
from anywire_gateway_openai.origins import Origins, checked_origin
from anywire_gateway_openai.passed_on import PassedOn
from anywire_gateway_openai.proxies import checked_proxy
from anywire_gateway_openai.registration import RegistrationHandler
from anywire_gateway_openai.responses.background import BackgroundResponses
from anywire_gateway_openai.responses.creating import ResponseHandler
from anywire_gateway_openai.responses.kept import KeptResponseHandlers
from anywire_gateway_openai.routes import Routes
from anywire_gateway_openai.service_routes import ServiceRoutes
from anywire_gateway_openai.task_views import TaskViewHandlers
from anywire_gateway_openai.tasks import TaskHandlers
from anywire_gateway_openai.websocket import ChatSockets
from anywire_gateway_openai.whole.handlers import WholeHandlers

log = logging.getLogger(__name__)

DEFAULT_PORT = 8080
"""Where it listens when no port is set and this one is free."""
_CANCEL_S = 1.0
"""How long a cancelled handler may take to tell its task; nothing in one waits for anything."""


class OpenAIGatewayConfig(pydantic.BaseModel):
    """Times in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    host: Annotated[str, FromCore("server.host")] = pydantic.Field(
        default="127.0.0.1", description="Address to listen on. Empty: none, the Unix socket alone."
    )
    port: Annotated[int | None, FromCore("server.port")] = pydantic.Field(
        default=None,
        ge=0,
        le=65535,
        description="Port to listen on, 0 for any that is free. Default: 8080, or any that is free when that is taken.",
    )
    unix: Annotated[Path | None, FromCore("server.unix")] = pydantic.Field(
        default=None, description="Unix socket to listen on besides, for this user alone and without TLS."
    )
    tls: Annotated[TlsConfig | None, FromCore("server.tls")] = pydantic.Field(
        default=None, description="Certificate of the port. Default: none, the port speaks HTTP without TLS."
    )
    reuse_port: bool = pydantic.Field(
        default=False,
        description="Share the port with other processes of this user that set this, too. `server.gateway_processes` "
        "does.",
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
    trusted_proxies: Annotated[list[str], FromCore("access.trusted_proxies")] = pydantic.Field(
        default_factory=list,
        description="Addresses and networks of proxies whose word counts on whom they pass on (`X-Forwarded-For`, "
        "`Forwarded`); `unix`: whoever is at the Unix socket.",
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
    idempotency_ttl: float = pydantic.Field(
        default=600.0,
        gt=0,
        description="Seconds for which the answer of a request with an `Idempotency-Key` is kept for one that is sent "
        "again.",
    )
    tenant_metrics: bool = pydantic.Field(
        default=False,
        description="Name tenants in the labels of `/metrics`: tasks, tokens and waits of each, of 200 at most.",
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

    @pydantic.field_validator("trusted_proxies")
    @classmethod
    def _are_proxies(cls, names: list[str]) -> list[str]:
        return [checked_proxy(each) for each in names]

    @pydantic.model_validator(mode="after")
    def _listens_somewhere(self) -> Self:
        if not self.host and self.unix is None:
            raise ValueError("host is empty, and there is no Unix socket to listen on: set host or unix")
        return self


class OpenAIGateway(Gateway):
    name: ClassVar[str] = "openai"
    Config = OpenAIGatewayConfig
    config: OpenAIGatewayConfig

    def __init__(self, config: OpenAIGatewayConfig) -> None:
        super().__init__(config)
        self._server: HttpServer | None = None
        self._routes: Routes | None = None
        self._sockets: ChatSockets | None = None
        self._metrics: Metrics | None = None
        self._callers: Callers | None = None
        self._listener: Listener | None = None
        self._kept: KeptAnswers | None = None
        self._passed_on: PassedOn | None = None
        self._responses: BackgroundResponses | None = None
        self._address = ""

    async def start(self, context: Context) -> None:
        config = self.config
        self._callers = callers = Callers(context.access, config.trusted_proxies)
        self._metrics = metrics = Metrics(context, self.name, config.tenant_metrics)
        default_model = DefaultModel(context, config.model)
        room = BodyRoom(max(config.max_bodies_bytes, config.max_body_bytes))
        self._kept = kept = KeptAnswers(config.idempotency_ttl)
        background = BackgroundHandlers(context, callers, max_body_bytes=config.max_body_bytes)
        tasks = TaskHandlers(
            context,
            callers,
            default_model,
            max_body_bytes=config.max_body_bytes,
            body_timeout=config.body_timeout,
            write_timeout=config.write_timeout,
            keep_alive=config.keep_alive,
            room=room,
            kept=kept,
            background=background,
        )
        self._responses = responses = BackgroundResponses(context)
        creating = ResponseHandler(
            context,
            callers,
            default_model,
            responses,
            max_body_bytes=config.max_body_bytes,
            body_timeout=config.body_timeout,
            write_timeout=config.write_timeout,
            keep_alive=config.keep_alive,
            room=room,
        )
        messages = MessageHandlers(
            context,
            callers,
            default_model,
            max_body_bytes=config.max_body_bytes,
            body_timeout=config.body_timeout,
            write_timeout=config.write_timeout,
            keep_alive=config.keep_alive,
            room=room,
            kept=kept,
        )
        requests = RequestLog(config.log_requests)
        self._sockets = ChatSockets(
            context,
            callers,
            metrics,
            default_model,
            requests,
            max_body_bytes=config.max_body_bytes,
            write_timeout=config.write_timeout,
            heartbeat=config.heartbeat,
            room=room,
        )
        origins = Origins(config.allowed_origins)
        if isinstance(context, PassesOn):
            self._passed_on = PassedOn(context.orchestrator_socket, callers, config.write_timeout)
        limit = ConnectionLimit("the OpenAI gateway")
        patience = {"write_timeout": config.write_timeout, "heartbeat": config.heartbeat}
        events = EventHandler(context, callers, **patience)
        description = ApiDescription(callers)
        own = own_endpoints(
            tasks,
            creating,
            KeptResponseHandlers(context, callers, responses, write_timeout=config.write_timeout),
            messages,
            background,
            TaskViewHandlers(context, callers, **patience),
            events,
            CatalogueHandlers(context, callers),
            AgentCommandHandler(context, callers, body_timeout=config.body_timeout, **patience),
            AgentOrderHandlers(context, callers, body_timeout=config.body_timeout),
            RegistrationHandler(context, callers),
            self._sockets,
            metrics,
            WholeHandlers(
                context,
                callers,
                default_model,
                max_body_bytes=config.max_body_bytes,
                body_timeout=config.body_timeout,
                room=room,
                kept=kept,
            ),
            OllamaHandlers(
                context,
                callers,
                max_body_bytes=config.max_body_bytes,
                body_timeout=config.body_timeout,
                write_timeout=config.write_timeout,
                keep_alive=config.keep_alive,
                room=room,
                kept=kept,
            ),
            OllamaCatalogue(context, callers, body_timeout=config.body_timeout),
            description,
        )
        self._routes = Routes(
            own,
            ServiceRoutes(
                context.routes, callers, body_timeout=config.body_timeout, write_timeout=config.write_timeout
            ),
            callers,
            origins,
            events,
            metrics.errors,
            limit,
            requests,
            context.tracing,
            self._passed_on,
        )
        description.begin(lambda: self.endpoints, BASES)
        self._server = HttpServer(self._routes, limit, config.idle_timeout)
        self._listener = listener = Listener(
            "the OpenAI gateway",
            self._server,
            host=config.host,
            port=config.port,
            default_port=DEFAULT_PORT,
            port_key="server.port (--port; 0 takes a free one)",
            unix=config.unix,
            tls=config.tls,
            reuse_port=config.reuse_port,
        )
        listener.certificate_reloaded = partial(context.events.publish, ConfigReloaded, what="certificate")
        await listener.open()
        self._address = listener.address
        responses.start()
        certified = config.tls is not None and config.tls.client_ca is not None
        if not callers.needs_key and listener.host and not is_loopback(listener.host) and not certified:
            log.warning("the OpenAI gateway listens on %s port %d without authentication: whoever reaches it can "
                        "use every agent (`server.host: 127.0.0.1`, or --host, closes it)",
                        listener.host, listener.port)  # fmt: skip

    async def close(self) -> None:
        """Listen no more, give running requests ``shutdown_grace`` seconds, then cut them off (their tasks are
        cancelled)."""
        if self._listener is None or self._server is None or self._routes is None:
            return
        listener, self._listener = self._listener, None
        await listener.stop()
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
        if self._kept is not None:
            self._kept.close()
        await self._server.shutdown(_CANCEL_S / 20)
        for transport in cut_off:
            if transport is not None:
                transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                await self._routes.idle()
        await listener.close()
        if self._responses is not None:
            await self._responses.close()
        if self._passed_on is not None:
            await self._passed_on.close()
        if self._metrics is not None:
            self._metrics.close()
        if self._callers is not None:
            self._callers.close()

    @property
    def endpoints(self) -> list[Endpoint]:
        """Everything that is served now; nothing before `start`."""
        return self._routes.endpoints if self._routes is not None else []

    @property
    def address(self) -> str:
        return self._address

    def metrics(self) -> Iterable[Metric]:
        return self._metrics.told() if self._metrics is not None else ()

    @property
    def tls(self) -> TlsConfig | None:
        return self.config.tls if self.config.host else None
