"""The service ``opentelemetry``: sends traces, numbers and lines of the log to a receiver that speaks OTLP."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from time import time_ns

from anywire.context import Context
from anywire.measures.measures import Measures
from anywire.metric import Metric
from anywire.service import Service
from anywire_service_opentelemetry import names
from anywire_service_opentelemetry.config import OpenTelemetryConfig
from anywire_service_opentelemetry.encoding import spans_request
from anywire_service_opentelemetry.log_lines import LEVELS, Line, LineHandler, lines_request
from anywire_service_opentelemetry.metric_encoding import metrics_request
from anywire_service_opentelemetry.outbox import Outbox
from anywire_service_opentelemetry.receiver import Outcome, Receiver
from anywire_service_opentelemetry.span import Attributes, Span
from anywire_service_opentelemetry.tracer import SpanTracer

log = logging.getLogger(__name__)


class OpenTelemetryService(Service):
    """Nothing waits for the receiver: what cannot be sent is kept, up to a bound, and dropped beyond it."""

    name = "opentelemetry"
    Config = OpenTelemetryConfig

    config: OpenTelemetryConfig

    def __init__(self, config: OpenTelemetryConfig) -> None:
        super().__init__(config)
        headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        self._receiver = Receiver(config.endpoint, headers, config.ca, config.timeout)
        self._spans: Outbox[Span] | None = None
        self._lines: Outbox[Line] | None = None
        self._tracer: SpanTracer | None = None
        self._handler: LineHandler | None = None
        self._measures: Measures | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._context: Context | None = None
        self._version = version("anywire")
        self._own: Attributes = {}
        self._began_ns = 0
        self._metrics_failed = 0

    async def start(self, context: Context) -> None:
        config = self.config
        self._context, self._began_ns = context, time_ns()
        self._own = {
            names.SERVICE_NAME: config.service_name,
            names.SERVICE_VERSION: self._version,
            names.SERVICE_INSTANCE: context.info.hub_id,
            names.HOST_NAME: context.info.host or socket.gethostname(),
            names.PROCESS_ID: context.info.pid or os.getpid(),
            **config.attributes,
        }
        self._receiver.open()
        if config.traces:
            chars = config.content_chars if config.content else 1
            self._spans = spans = Outbox("spans", config.buffer, config.interval, self._send_spans, chars)
            spans.start()
            self._tracer = tracer = SpanTracer(
                context,
                spans.put,
                ratio=config.ratio,
                follow_clients=config.follow_clients,
                content_chars=chars if config.content else 0,
            )
            context.tracing.use(f"service {self.name}", tracer)
        if config.logs != "off":
            self._lines = lines = Outbox("lines of the log", config.buffer, config.interval, self._send_lines)
            lines.start()
            self._handler = LineHandler(LEVELS[config.logs], lines.put_from_anywhere, self._trace_of)
            logging.getLogger().addHandler(self._handler)
        if config.metrics:
            self._measures = Measures(context, config.tenant_metrics)
            self._measuring = asyncio.get_running_loop().create_task(self._measure(), name="opentelemetry metrics")

    async def close(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            logging.getLogger().removeHandler(handler)
        tracer, self._tracer = self._tracer, None
        if tracer is not None:
            if self._context is not None:
                self._context.tracing.end(tracer)
            tracer.close()
        measuring, self._measuring = self._measuring, None
        if measuring is not None:
            measuring.cancel()
            await asyncio.wait((measuring,))
        boxes = [each.close() for each in (self._spans, self._lines) if each is not None]
        await asyncio.gather(*boxes)
        measures, self._measures = self._measures, None
        if measures is not None:
            measures.close()
        await self._receiver.close()

    def metrics(self) -> Iterable[Metric]:
        for signal, box in (("traces", self._spans), ("logs", self._lines)):
            if box is None:
                continue
            labels = {"signal": signal}
            yield Metric("sent", "Spans, and lines of the log, that were sent.", box.sent, labels, counter=True)
            yield Metric(
                "dropped",
                "Spans, and lines of the log, that were dropped: there was no room, or the receiver refused them.",
                box.dropped,
                labels,
                counter=True,
            )
            yield Metric(
                "rejected",
                "Spans, and lines, that the receiver said it did not take.",
                box.rejected,
                labels,
                counter=True,
            )
            yield Metric("failed_requests", "Requests to the receiver that failed.", box.failures, labels, counter=True)
            yield Metric("waiting", "Spans, and lines of the log, that wait to be sent.", box.waiting, labels)
        if self._measuring is not None:
            labels = {"signal": "metrics"}
            failed = self._metrics_failed
            yield Metric("failed_requests", "Requests to the receiver that failed.", failed, labels, counter=True)
        if self._tracer is not None:
            text = "Tasks that were not traced because too many were traced at once."
            yield Metric("not_traced", text, self._tracer.not_traced, counter=True)

    # Inside

    def _trace_of(self, task_id: str) -> str:
        return self._tracer.trace_of(task_id) if self._tracer is not None else ""

    async def _send_spans(self, spans: Sequence[Span]) -> Outcome:
        return await self._receiver.send("traces", spans_request(spans, self._own, self._agents(spans), self._version))

    async def _send_lines(self, lines: Sequence[Line]) -> Outcome:
        return await self._receiver.send("logs", lines_request(lines, self._own, self._version))

    def _agents(self, spans: Sequence[Span]) -> dict[str, Attributes]:
        """The resources of the agents that spans are of, as far as these are still here."""
        named = {span.agent for span in spans if span.agent}
        if not named or self._context is None:
            return {}
        own = self.config.attributes
        return {
            view.agent_id: {
                names.SERVICE_NAME: f"{self.config.service_name}-agent",
                names.SERVICE_INSTANCE: view.agent_id,
                names.HOST_NAME: view.info.host,
                names.PROCESS_ID: view.info.pid,
                **own,
            }
            for view in self._context.agents()
            if view.agent_id in named
        }

    async def _send_numbers(self, measures: Measures) -> Outcome:
        try:
            now_ns = time_ns()
            request = metrics_request(measures.families(), self._own, self._version, self._began_ns, now_ns)
        except Exception as error:  # another plugin's numbers, say
            return Outcome(f"{type(error).__name__}: {error}")
        return await self._receiver.send("metrics", request)

    async def _measure(self) -> None:
        """Send the numbers again and again. What cannot be sent is not kept: the next ones hold it all."""
        assert self._context is not None
        assert self._measures is not None
        failing = False
        while True:
            await self._context.clock.sleep(self.config.metrics_interval)
            outcome = await self._send_numbers(self._measures)
            if outcome.fault:
                self._metrics_failed += 1
            if outcome.fault and not failing:
                log.warning("numbers cannot be sent to OpenTelemetry: %s", outcome.fault)
            elif failing and not outcome.fault:
                log.info("numbers are sent to OpenTelemetry again")
            failing = bool(outcome.fault)
