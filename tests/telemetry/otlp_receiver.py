"""A receiver that speaks OTLP over HTTP, and keeps what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from anywire.testing.patience import expect


def told(attributes: Any) -> dict[str, Any]:
    """Attributes as plain values."""

    def plain(each: KeyValue) -> Any:
        return getattr(each.value, each.value.WhichOneof("value") or "string_value")

    return {each.key: plain(each) for each in attributes}


class OtlpReceiver:
    """``status`` is what it answers, ``hold`` is awaited before it does."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        self.spans: list[Span] = []
        self.resources: dict[str, dict[str, Any]] = {}
        """That of each span, by its id in hexadecimal."""
        self.metrics: dict[str, Metric] = {}
        self.lines: list[LogRecord] = []
        self.hold: asyncio.Event | None = None
        self.port = 0
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until(self, condition: Callable[[], object], what: str) -> None:
        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        await expect(wait(), what, seen=lambda: f"; {len(self.spans)} spans: {[each.name for each in self.spans]}")

    def named(self, name: str) -> list[Span]:
        return [each for each in self.spans if each.name == name]

    async def traces(self, request: web.Request) -> web.Response:
        asked = ExportTraceServiceRequest.FromString(await self._body(request))
        if self.status == 200:
            for group in asked.resource_spans:
                assert group.schema_url
                for scope in group.scope_spans:
                    for span in scope.spans:
                        self.spans.append(span)
                        self.resources[span.span_id.hex()] = told(group.resource.attributes)
        return self._answer(ExportTraceServiceResponse())

    async def numbers(self, request: web.Request) -> web.Response:
        asked = ExportMetricsServiceRequest.FromString(await self._body(request))
        for group in asked.resource_metrics:
            for scope in group.scope_metrics:
                self.metrics = {each.name: each for each in scope.metrics}
        return self._answer(ExportMetricsServiceResponse())

    async def logs(self, request: web.Request) -> web.Response:
        asked = ExportLogsServiceRequest.FromString(await self._body(request))
        if self.status == 200:
            for group in asked.resource_logs:
                for scope in group.scope_logs:
                    self.lines += scope.log_records
        return self._answer(ExportLogsServiceResponse())

    async def _body(self, request: web.Request) -> bytes:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        self.requests += 1
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()
        if self.hold is not None:
            await self.hold.wait()
        return body

    def _answer(self, answer: Any) -> web.Response:
        self._changed.set()
        return web.Response(status=self.status, body=answer.SerializeToString(), content_type="application/x-protobuf")


@asynccontextmanager
async def otlp_receiver(port: int = 0) -> AsyncIterator[OtlpReceiver]:
    """A receiver that listens, at ``port`` if one is given."""
    receiver = OtlpReceiver()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", receiver.traces)
    app.router.add_post("/v1/metrics", receiver.numbers)
    app.router.add_post("/v1/logs", receiver.logs)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        await runner.cleanup()
