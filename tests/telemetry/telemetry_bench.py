"""A gateway, an orchestrator and agents in one process, with the service `opentelemetry` beside, and a receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from tests.integration.gateway_serving import Served, joined, serving
from tests.telemetry.otlp_receiver import OtlpReceiver, otlp_receiver

from anywire.engine import Engine
from anywire.roles.context import OrchestratorContext
from anywire.roles.service_host import ServiceHost
from anywire.service import Service
from anywire_service_opentelemetry.config import OpenTelemetryConfig
from anywire_service_opentelemetry.service import OpenTelemetryService

QUICK: dict[str, Any] = {"interval": 0.01, "metrics_interval": 0.1}
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-01"
NOT_SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-00"


class Telemetry(NamedTuple):
    served: Served
    receiver: OtlpReceiver
    service: OpenTelemetryService
    http: aiohttp.ClientSession

    async def chat(self, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to a chat."""
        body = {"model": "m", "messages": [{"role": "user", "content": "secret words"}]} | fields
        async with self.http.post("/v1/chat/completions", json=body, headers=headers) as answer:
            return answer.status, dict(answer.headers), await answer.read()


@asynccontextmanager
async def telemetry(
    *engines: Engine, more: Sequence[Service] = (), state: Path | None = None, **options: Any
) -> AsyncIterator[Telemetry]:
    """``options`` are the service's, those of ``pipeline`` and ``gateway`` apart; ``more`` are further services."""
    pipeline, gateway = options.pop("pipeline", {}), options.pop("gateway", {})
    slots = options.pop("slots", 64)
    async with (
        otlp_receiver() as receiver,
        serving(engines[0], pipeline=pipeline, slots=slots, **gateway) as served,
        joined(served, engines),
    ):
        config = OpenTelemetryConfig(**(QUICK | {"endpoint": receiver.url} | options))
        service = OpenTelemetryService(config)

        def context(name: str) -> OrchestratorContext:
            return OrchestratorContext(served.orchestrator, name, state=state, is_service=True)

        host = ServiceHost([service, *more], served.orchestrator, context)
        await host.start()
        try:
            async with aiohttp.ClientSession(served.url) as http:
                yield Telemetry(served, receiver, service, http)
        finally:
            await host.close()
