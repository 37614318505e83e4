"""The gateway as the framework sees it: its services, its port, its life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from anywire.access_settings import TlsConfig
from anywire.context import Context
from anywire.errors import ConfigError
from anywire.events import ConfigReloaded
from anywire.gateway import Gateway
from anywire.metric import Metric
from anywire.transport_tools import is_loopback
from anywire_gateway_grpc.admission import Admission
from anywire_gateway_grpc.asking import Asking
from anywire_gateway_grpc.call_records import CallRecords
from anywire_gateway_grpc.calls import Calls, Method
from anywire_gateway_grpc.collected import FindCollected, collected_of
from anywire_gateway_grpc.config import GrpcGatewayConfig
from anywire_gateway_grpc.council_calls import CouncilCalls
from anywire_gateway_grpc.executor_service import ExecutorCalls
from anywire_gateway_grpc.numbers import Numbers
from anywire_gateway_grpc.orchestrator_service import UNSERVED, OrchestratorCalls
from anywire_gateway_grpc.packages import EXECUTOR, NAMES, ORCHESTRATOR
from anywire_gateway_grpc.questions import Models
from anywire_gateway_grpc.serving import Certificate, new_server
from anywire_service_deliberation.offered import Deliberations

log = logging.getLogger(__name__)

SERVICE = "deliberation"
_CANCEL_S = 1.0
"""How long cancelled calls may take to end; nothing in one waits for anything."""


class GrpcGateway(Gateway):
    """Deliberations over gRPC: the services of `packages.NAMES`, with reflection and health. They need no key for these
    two, and for everything else one where keys are needed."""

    name: ClassVar[str] = "grpc"
    Config = GrpcGatewayConfig
    config: GrpcGatewayConfig

    def __init__(self, config: GrpcGatewayConfig) -> None:
        super().__init__(config)
        self._server: grpc.aio.Server | None = None
        self._health: Any = None
        self._calls: Calls | None = None
        self._admission: Admission | None = None
        self._certificate: Certificate | None = None
        self._records = CallRecords(config.log_requests)
        self._address = ""

    async def start(self, context: Context) -> None:
        config = self.config
        deliberations: Deliberations | None = context.services.get(SERVICE)
        if deliberations is None:
            raise ConfigError(
                f"the gateway grpc needs the service {SERVICE}: add it under services ({SERVICE}: {{}}), or leave the "
                "gateway out"
            )
        if config.tls is not None:
            self._certificate = Certificate(config.tls, partial(_reloaded, context))
        self._server, host, port = new_server(config, self._certificate)
        self._admission = Admission(context.access, config.max_calls)
        asking = Asking(deliberations, Models(config.models, context.models), config.wait)
        methods, unserved = _methods(asking, Numbers(context, deliberations), partial(collected_of, context))
        self._calls = Calls(self._admission, self._records, config.reader_timeout, methods, unserved)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs have not got it
        names = [name for each in NAMES.values() for name in each]
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server.add_generic_rpc_handlers((self._calls,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        enable_server_reflection((*names, health.SERVICE_NAME, REFLECTION), self._server)
        await self._server.start()
        if self._certificate is not None:
            self._certificate.start()
        scheme = "grpc" if config.tls is None else "grpcs"
        self._address = f"{scheme}://{_reachable(host)}:{port}"
        log.info("deliberations over gRPC at %s", self._address)
        certified = config.tls is not None and config.tls.client_ca is not None
        if not self._admission.needs_key and not is_loopback(host) and not certified:
            log.warning("the gateway grpc listens on %s port %d without authentication: whoever reaches it can use "
                        "every agent; host: 127.0.0.1 closes it", host, port)  # fmt: skip

    async def close(self) -> None:
        """Listen no more, give running calls ``shutdown_grace`` seconds, then end them. What was asked goes on."""
        server, self._server = self._server, None
        if server is not None:
            stopping = asyncio.ensure_future(server.stop(self.config.shutdown_grace))
            if self._health is not None:
                await self._health.enter_graceful_shutdown()
            await stopping
            if self._calls is not None:
                await self._calls.ended(_CANCEL_S)
        if self._admission is not None:
            self._admission.close()
        if self._certificate is not None:
            await self._certificate.close()

    def metrics(self) -> Iterable[Metric]:
        return self._records.metrics()

    @property
    def address(self) -> str:
        return self._address

    @property
    def tls(self) -> TlsConfig | None:
        return self.config.tls


def _methods(asking: Asking, numbers: Numbers, collected: FindCollected) -> tuple[dict[str, Method], dict[str, str]]:
    """Those that are served, and a sentence for each of those that are not, by full name."""
    of_orchestrator = {
        **OrchestratorCalls(asking, numbers, collected).methods,
        **CouncilCalls(asking).methods,
        **numbers.methods,
    }
    served: dict[str, dict[str, Method]] = {
        ORCHESTRATOR: of_orchestrator,
        EXECUTOR: ExecutorCalls(asking, numbers).methods,
    }
    methods = {
        f"/{name}/{method}": found
        for service, names in NAMES.items()
        for name in names
        for method, found in served[service].items()
    }
    unserved = {f"/{name}/{method}": why for name in NAMES[ORCHESTRATOR] for method, why in UNSERVED.items()}
    return methods, unserved


def _reloaded(context: Context, error: str) -> None:
    context.events.publish(ConfigReloaded, what="certificate", error=error)


def _reachable(host: str) -> str:
    """An address that a client on this machine can use."""
    named: dict[str, Any] = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    reached = str(named.get(host, host))
    return f"[{reached}]" if ":" in reached else reached
