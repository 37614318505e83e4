"""A span that has ended, in types of our own; it becomes OTLP when it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Value = str | bool | int | float
Attributes = Mapping[str, Value]
SpanKind = Literal["internal", "server", "client"]


class SpanEvent(NamedTuple):
    """``time_ns`` is nanoseconds since 1970."""

    name: str
    time_ns: int
    attributes: Attributes


class SpanLink(NamedTuple):
    trace_id: str
    span_id: str
    attributes: Attributes


class Span(NamedTuple):
    """Ids are hexadecimal, ``parent`` is empty at the root. Times are nanoseconds since 1970. ``error`` is a code,
    empty for success. ``agent`` is the id of the agent in whose process it was, empty for the orchestrator's own."""

    trace_id: str
    span_id: str
    parent: str
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    attributes: Attributes
    error: str = ""
    message: str = ""
    state: str = ""
    agent: str = ""
    events: Sequence[SpanEvent] = ()
    links: Sequence[SpanLink] = ()
