"""What ``GET /metrics`` tells: the orchestrator's numbers (`anywire.measures`), and what the gateway counts itself.

Prometheus reads it as text, or as OpenMetrics where it asks for that; only there have buckets the ids of a trace
(exemplars).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from aiohttp import web

from anywire.context import Context
from anywire.measures.families import AnyFamily, Family, HistogramFamily, HistogramSample, alone
from anywire.measures.measures import Measures
from anywire.metric import Metric as Told
from anywire_gateway_openai.openapi.form import Form, described

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Exemplar

    Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class Metrics:
    """Shows the numbers, and counts the errors that are answered. ``name`` is the gateway's; ``connections`` are the
    WebSockets open now. Close it."""

    def __init__(self, context: Context, name: str, names_tenants: bool = False) -> None:
        self._measures = Measures(context, names_tenants, without=name)
        self.connections = 0
        self.errors: Counter[int] = Counter()
        self.close = self._measures.close

    @described(Form(others=("text/plain", "application/openmetrics-text")))
    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Metrics in Prometheus's text form, or as OpenMetrics for a scraper that asks for it."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self), headers={"Content-Type": content_type, "Server": "anywire"})

    def collect(self) -> Iterator[Metric]:
        """What the encoder asks a registry for."""
        for family in (*self._measures.families(), *self._own()):
            yield shown(family)

    def told(self) -> Iterator[Told]:
        """What the gateway counts itself, for others who measure."""
        yield Told("websocket_connections", "WebSockets open now.", self.connections)
        for status, number in self.errors.items():
            text = "Requests answered with nothing but an error, by its HTTP status."
            yield Told("request_errors", text, number, {"status": str(status)}, counter=True)

    def _own(self) -> Iterator[Family]:
        yield alone("anywire_websocket_connections", "WebSockets open now.", self.connections)
        yield Family(
            "anywire_request_errors",
            "Requests answered with nothing but an error, by its HTTP status.",
            "counter",
            ("status",),
            [((str(status),), number) for status, number in self.errors.items()],
        )


def shown(family: AnyFamily) -> Metric:
    """A family as Prometheus's library has it."""
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        SummaryMetricFamily,
    )

    if isinstance(family, HistogramFamily):
        histogram = HistogramMetricFamily(family.name, family.text, labels=family.labels)
        for each in family.samples:
            histogram.add_metric(each.labels, _buckets(family, each), each.sum)
        return histogram
    if family.kind == "summary":
        summary = SummaryMetricFamily(family.name, family.text, labels=family.labels)
        for (labels, total), (_, count) in zip(family.samples, family.counts, strict=True):
            summary.add_metric(labels, count, total)
        return summary
    if family.kind == "counter":
        counter = CounterMetricFamily(family.name, family.text, labels=family.labels)
        for labels, value in family.samples:
            counter.add_metric(labels, value)
        return counter
    gauge = GaugeMetricFamily(family.name, family.text, labels=family.labels)
    for labels, value in family.samples:
        gauge.add_metric(labels, value)
    return gauge


def _buckets(family: HistogramFamily, sample: HistogramSample) -> list[Bucket]:
    """The buckets of a sample as the format wants them: each with all that is below it."""
    from prometheus_client.samples import Exemplar

    found: list[Bucket] = []
    names = (*map(str, family.bounds), "+Inf")
    for number, (name, count) in enumerate(zip(names, accumulate(sample.counts), strict=True)):
        exemplar = sample.exemplars.get(number)
        if exemplar is None:
            found.append((name, count))
        else:
            ids = {"trace_id": exemplar.trace_id, "span_id": exemplar.span_id}
            found.append((name, count, Exemplar(ids, exemplar.value, round(exemplar.time, 3))))
    return found
