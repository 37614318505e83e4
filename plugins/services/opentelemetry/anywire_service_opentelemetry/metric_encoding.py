"""From families of numbers to OTLP.

Names are spelled as OpenTelemetry does: ``anywire_stage_seconds`` becomes ``anywire.stage`` with the unit ``s``. A
collector that shows it to Prometheus gives it the name that it has at `/metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from anywire.measures.families import AnyFamily, Family, HistogramFamily
from anywire_service_opentelemetry import names
from anywire_service_opentelemetry.encoding import instrumentation, key_values, plain, resource_of
from anywire_service_opentelemetry.span import Attributes

UNITS = {"_seconds": "s", "_bytes": "By"}
CONVENTIONAL: Mapping[str, str] = {
    "gen_ai_server_request_duration_seconds": "gen_ai.server.request.duration",
    "gen_ai_server_time_to_first_token_seconds": "gen_ai.server.time_to_first_token",
    "gen_ai_server_time_per_output_token_seconds": "gen_ai.server.time_per_output_token",
}
"""Names of the conventions, by what Prometheus makes of them."""
LABELS: Mapping[str, str] = {
    "gen_ai_operation_name": "gen_ai.operation.name",
    "gen_ai_request_model": "gen_ai.request.model",
    "gen_ai_provider_name": "gen_ai.provider.name",
    "gen_ai_token_type": "gen_ai.token.type",
    "error_type": names.ERROR_TYPE,
    "transport": names.TRANSPORT,
    "tenant": names.TENANT,
}
"""Names of attributes, by those of labels; others keep theirs."""


def metrics_request(
    families: Iterable[AnyFamily], own: Attributes, version: str, began_ns: int, now_ns: int
) -> ExportMetricsServiceRequest:
    """All numbers as they are at ``now_ns``, counted since ``began_ns`` (nanoseconds since 1970)."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add(resource=resource_of(own), schema_url=names.SCHEMA)
    scope = group.scope_metrics.add(scope=instrumentation(version), schema_url=names.SCHEMA)
    for family in families:
        name, unit = otlp_name(family.name)
        metric = scope.metrics.add(name=name, unit=unit, description=plain(family.text))
        if isinstance(family, HistogramFamily):
            _histogram(metric, family, began_ns, now_ns)
        else:
            _number(metric, family, began_ns, now_ns)
    return request


def otlp_name(name: str) -> tuple[str, str]:
    """Name and unit of a family."""
    unit, stem = "", name
    for suffix, each in UNITS.items():
        if name.endswith(suffix):
            unit, stem = each, name.removesuffix(suffix)
    known = CONVENTIONAL.get(name)
    return (known, unit) if known else (stem.replace("anywire_", "anywire.", 1), unit)


def _attributes(labels: tuple[str, ...], values: tuple[str, ...]) -> Attributes:
    return {LABELS.get(label, label): value for label, value in zip(labels, values, strict=True) if value}


def _number(metric: Metric, family: Family, began_ns: int, now_ns: int) -> None:
    if family.kind == "summary":
        for (labels, total), (_, count) in zip(family.samples, family.counts, strict=True):
            metric.summary.data_points.add(
                attributes=key_values(_attributes(family.labels, labels)),
                start_time_unix_nano=began_ns,
                time_unix_nano=now_ns,
                count=count,
                sum=total,
            )
        return
    points = [
        NumberDataPoint(
            attributes=key_values(_attributes(family.labels, labels)),
            start_time_unix_nano=began_ns if family.kind == "counter" else 0,
            time_unix_nano=now_ns,
            as_double=value,
        )
        for labels, value in family.samples
    ]
    if family.kind == "counter":
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        metric.sum.data_points.extend(points)
    else:
        metric.gauge.data_points.extend(points)
        metric.gauge.SetInParent()


def _histogram(metric: Metric, family: HistogramFamily, began_ns: int, now_ns: int) -> None:
    metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    for sample in family.samples:
        point = HistogramDataPoint(
            attributes=key_values(_attributes(family.labels, sample.labels)),
            start_time_unix_nano=began_ns,
            time_unix_nano=now_ns,
            count=sum(sample.counts),
            sum=sample.sum,
            bucket_counts=sample.counts,
            explicit_bounds=family.bounds,
        )
        for exemplar in sample.exemplars.values():
            point.exemplars.append(
                metrics_pb2.Exemplar(
                    time_unix_nano=int(exemplar.time * 1e9),
                    as_double=exemplar.value,
                    trace_id=bytes.fromhex(exemplar.trace_id),
                    span_id=bytes.fromhex(exemplar.span_id),
                )
            )
        metric.histogram.data_points.append(point)
