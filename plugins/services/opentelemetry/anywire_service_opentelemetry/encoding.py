"""From our own types to the messages of OTLP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from anywire_service_opentelemetry import names
from anywire_service_opentelemetry.span import Attributes, Span, SpanKind, Value

SCOPE_NAME = "anywire"
_KINDS: dict[SpanKind, trace_pb2.Span.SpanKind.ValueType] = {
    "internal": trace_pb2.Span.SPAN_KIND_INTERNAL,
    "server": trace_pb2.Span.SPAN_KIND_SERVER,
    "client": trace_pb2.Span.SPAN_KIND_CLIENT,
}
MAX_TEXT = 1_000_000
"""Characters of the longest text of an attribute."""


def key_values(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=name, value=any_value(value)) for name, value in attributes.items()]


def any_value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int() if -(2**63) <= value < 2**63:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(string_value=plain(str(value)[:MAX_TEXT]))


def plain(text: str) -> str:
    """The text as UTF-8 can have it: a lone surrogate becomes a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def resource_of(attributes: Attributes) -> Resource:
    return Resource(attributes=key_values(attributes))


def instrumentation(version: str) -> InstrumentationScope:
    return InstrumentationScope(name=SCOPE_NAME, version=version)


def spans_request(
    spans: Sequence[Span], own: Attributes, agents: Mapping[str, Attributes], version: str
) -> ExportTraceServiceRequest:
    """The spans of a batch, those of each process together. ``own`` is the resource of the orchestrator, ``agents`` has
    those of agents by id; an agent that is not there is told by its id alone."""
    by_agent: dict[str, list[Span]] = {}
    for span in spans:
        by_agent.setdefault(span.agent, []).append(span)
    request = ExportTraceServiceRequest()
    for agent, some in by_agent.items():
        told = agents.get(agent, {**own, names.SERVICE_INSTANCE: agent}) if agent else own
        group = request.resource_spans.add(resource=resource_of(told), schema_url=names.SCHEMA)
        scope = group.scope_spans.add(scope=instrumentation(version), schema_url=names.SCHEMA)
        scope.spans.extend(_encoded(some))
    return request


def _time(ns: int) -> int:
    """As its field can have it."""
    return max(0, min(ns, 2**63))


def _encoded(spans: Iterable[Span]) -> Iterable[trace_pb2.Span]:
    for span in spans:
        trace_id = bytes.fromhex(span.trace_id)
        made = trace_pb2.Span(
            trace_id=trace_id,
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent),
            trace_state=plain(span.state),
            flags=trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | 1,
            name=plain(span.name),
            kind=_KINDS[span.kind],
            start_time_unix_nano=_time(span.start_ns),
            end_time_unix_nano=_time(span.end_ns),
            attributes=key_values(span.attributes),
        )
        for event in span.events:
            made.events.add(
                name=event.name, time_unix_nano=_time(event.time_ns), attributes=key_values(event.attributes)
            )
        for link in span.links:
            made.links.add(
                trace_id=bytes.fromhex(link.trace_id),
                span_id=bytes.fromhex(link.span_id),
                attributes=key_values(link.attributes),
            )
        if span.error:
            made.status.code = trace_pb2.Status.STATUS_CODE_ERROR
            made.status.message = plain(span.message or span.error)
        yield made
