"""Lines of the log on their way to OTLP, with the trace of the request that they are about."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1 import logs_pb2

from anywire.log_lines import RepeatLimit
from anywire.secrecy import tree_without_secrets, without_secrets
from anywire.tracing import CURRENT, read_trace
from anywire_service_opentelemetry import names
from anywire_service_opentelemetry.encoding import any_value, instrumentation, key_values, plain, resource_of
from anywire_service_opentelemetry.span import Attributes, Value

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
MAX_MESSAGE = 16_384
"""Characters of a line, of each of its fields and of its traceback, that are sent."""
_SEVERITIES = (
    (logging.CRITICAL, logs_pb2.SEVERITY_NUMBER_FATAL, "FATAL"),
    (logging.ERROR, logs_pb2.SEVERITY_NUMBER_ERROR, "ERROR"),
    (logging.WARNING, logs_pb2.SEVERITY_NUMBER_WARN, "WARN"),
    (logging.INFO, logs_pb2.SEVERITY_NUMBER_INFO, "INFO"),
    (logging.NOTSET, logs_pb2.SEVERITY_NUMBER_DEBUG, "DEBUG"),
)


class Line(NamedTuple):
    """``time_ns`` is nanoseconds since 1970; ids are hexadecimal, empty where no trace is known."""

    time_ns: int
    level: int
    message: str
    attributes: Attributes
    trace_id: str
    span_id: str


class LineHandler(logging.Handler):
    """Gives each line to ``keep``, without secrets. ``trace_of`` tells the trace of a task that goes on, by its id.
    Lines of any thread are taken."""

    def __init__(self, level: int, keep: Callable[[Line], None], trace_of: Callable[[str], str]) -> None:
        super().__init__(level)
        self._keep, self._trace_of = keep, trace_of
        self.addFilter(RepeatLimit())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._keep(self._line(record))
        except Exception:
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> Line:
        told: dict[str, Value] = {"logger": record.name}
        fields = getattr(record, "fields", None)
        own: Mapping[str, object] = fields if isinstance(fields, Mapping) else {}
        for name, value in tree_without_secrets(dict(own)).items():
            told[f"anywire.{name}"] = value if isinstance(value, bool | int | float) else str(value)[:MAX_MESSAGE]
        if record.exc_info and record.exc_info[1] is not None:
            told["exception.type"] = type(record.exc_info[1]).__name__
            text = "".join(traceback.format_exception(record.exc_info[1]))
            told["exception.stacktrace"] = without_secrets(text)[:MAX_MESSAGE]
        message = without_secrets(record.getMessage())[:MAX_MESSAGE]
        trace_id, span_id = self._ids(own)
        return Line(int(record.created * 1e9), record.levelno, message, told, trace_id, span_id)

    def _ids(self, fields: Mapping[str, object]) -> tuple[str, str]:
        scope = CURRENT.get()
        trace = scope.trace if scope is not None and not scope.is_ended else ""
        task_id = fields.get("task")
        if not trace and isinstance(task_id, str):
            trace = self._trace_of(task_id)
        found = read_trace(trace)
        return (found.trace_id, found.span_id) if found is not None else ("", "")


def lines_request(lines: Sequence[Line], own: Attributes, version: str) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add(resource=resource_of(own), schema_url=names.SCHEMA)
    scope = group.scope_logs.add(scope=instrumentation(version), schema_url=names.SCHEMA)
    for line in lines:
        number, text = next((number, text) for least, number, text in _SEVERITIES if line.level >= least)
        scope.log_records.add(
            time_unix_nano=line.time_ns,
            observed_time_unix_nano=line.time_ns,
            severity_number=number,
            severity_text=text,
            body=any_value(plain(line.message)),
            attributes=key_values(line.attributes),
            trace_id=bytes.fromhex(line.trace_id),
            span_id=bytes.fromhex(line.span_id),
            flags=1 if line.trace_id else 0,
        )
    return request
