"""What messages look like: two generations of envelopes, written and read by pure functions.

``payload``::

    {"event_type": "agent.response.completed", "idempotency_key": "t-7:agent-dev-2", "correlation_id": "t-7",
     "timestamp": "2026-01-05T10:00:00.000Z", "producer": "anywire", "metadata": {}, "payload": {"task_id": "t-7"}}

``flat``, which says nowhere what it is: its subject does::

    {"event_id": "0f8f…", "case_id": "t-7", "ts": "2026-01-05T10:00:00.000Z", "producer": "anywire",
     "trace_id": "4bf9…", "task_id": "t-7"}

Headers carry what neither has: ``Nats-Msg-Id`` the id, ``traceparent`` the trace, ``Anywire-Priority`` the priority.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from anywire.submission import MAX_NAME_CHARS
from anywire.tracing import MAX_STATE_CHARS

Generation = Literal["payload", "flat"]

ID_HEADER = "Nats-Msg-Id"
TRACE_HEADER = "traceparent"
STATE_HEADER = "tracestate"
PRIORITY_HEADER = "Anywire-Priority"

NAMESPACE = uuid.UUID("c2a5b2f4-6a0e-4f52-9a53-6f1f3d2f6f0b")
"""For the ids of ``flat``, which are UUIDs: they are made of ids that are none."""
MOST_TEXT = 1024
"""Characters of each text of a head that is read."""
HEAD = ("event_id", "case_id", "ts", "producer", "trace_id")
"""What ``flat`` has beside the payload; a payload has no member of these names."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One message, whatever its form. ``type`` is its subject's name (``agent.response.completed``), ``id`` the same
    for each time that the same thing is told, ``correlation`` what it belongs to (a task's id). ``time`` is in seconds
    since 1970, ``trace`` a W3C traceparent (with a tracestate after a space, if there is one), or the id of a trace
    alone where a message has no more."""

    type: str
    id: str
    correlation: str
    time: float
    payload: dict[str, Any]
    producer: str = "anywire"
    trace: str = ""
    priority: int = 0
    causation: str = ""
    metadata: dict[str, Any] = {}


class NotUnderstood(msgspec.Struct, frozen=True):
    """``reason`` says what is wrong with a message; it repeats nothing of it."""

    reason: str


def encode(envelope: Envelope, generation: Generation) -> bytes:
    """The message's body. Raises ValueError for a payload that is no JSON, or that the form cannot hold."""
    body: dict[str, Any]
    if generation == "payload":
        body = {
            "event_type": envelope.type,
            "idempotency_key": envelope.id,
            "correlation_id": envelope.correlation,
            "timestamp": told_time(envelope.time),
            "producer": envelope.producer,
            "metadata": envelope.metadata,
            "payload": envelope.payload,
        }
        if envelope.causation:
            body["causation_id"] = envelope.causation
    else:
        if clash := sorted(set(HEAD) & set(envelope.payload)):
            raise ValueError(f"a payload of the form flat has no member {clash[0]!r}")
        body = {
            "event_id": as_uuid(envelope.id),
            "case_id": envelope.correlation,
            "ts": told_time(envelope.time),
            "producer": envelope.producer,
        }
        if trace := trace_id(envelope.trace):
            body["trace_id"] = trace
        body |= envelope.payload
    try:
        return msgspec.json.encode(body)
    except (TypeError, OverflowError, RecursionError, UnicodeError, msgspec.MsgspecError) as error:
        raise ValueError(f"a message holds what is no JSON: {error}") from error


def headers(envelope: Envelope) -> dict[str, str]:
    """What goes with the body, in each form. Values are of printable ASCII."""
    found = {ID_HEADER: header_text(envelope.id)}
    trace, _, state = envelope.trace.partition(" ")
    if trace:
        found[TRACE_HEADER] = header_text(trace)
    if state:
        found[STATE_HEADER] = header_text(state)
    if envelope.priority:
        found[PRIORITY_HEADER] = str(envelope.priority)
    return found


def decode(data: bytes, subject: str = "", heads: Mapping[str, str] | None = None) -> Envelope | NotUnderstood:
    """The message with this body, which came to ``subject`` with these headers. Bytes of any kind are answered: what is
    neither form is not understood."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return NotUnderstood("it is no JSON")
    if not isinstance(body, dict):
        return NotUnderstood("it is no JSON object")
    try:
        found = _payload(body) if "event_type" in body or "idempotency_key" in body else _flat(body, subject)
    except ValueError as error:
        return NotUnderstood(str(error))
    trace, priority = found.trace, 0
    if heads:
        parent, state = str(heads.get(TRACE_HEADER, "")), str(heads.get(STATE_HEADER, ""))
        trace = carried_trace(parent or trace, state)
        text = str(heads.get(PRIORITY_HEADER, ""))
        if re.fullmatch(r"-?[0-9]{1,4}", text):
            priority = int(text)
    return msgspec.structs.replace(found, trace=trace, priority=priority)


def carried_trace(parent: str, state: str = "") -> str:
    """A trace as `anywire.tracing` has it. What no agent would take is ignored, as the standard demands: it says
    nothing of the message itself."""
    if len(parent) > MAX_NAME_CHARS or not parent.isprintable():
        return ""
    carried = parent and state and len(state) <= MAX_STATE_CHARS and state.isprintable()
    return f"{parent} {state}" if carried else parent


def told_time(seconds: float) -> str:
    """``seconds`` since 1970 as ISO 8601 in UTC, to milliseconds."""
    moment = _EPOCH + timedelta(milliseconds=round(seconds * 1000))
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def read_time(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; one that names no zone is UTC's. Raises ValueError for another text."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) / timedelta(seconds=1)


def as_uuid(text: str) -> str:
    """``text`` if it is a UUID, else the one that is always made of it."""
    try:
        return str(uuid.UUID(text)) if len(text) == 36 else str(uuid.uuid5(NAMESPACE, text))
    except ValueError:
        return str(uuid.uuid5(NAMESPACE, text))


def trace_id(trace: str) -> str:
    """The id of the trace in a W3C traceparent; ``trace`` itself where it is no such."""
    found = _TRACE.match(trace)
    return found[1] if found else trace


def header_text(text: str) -> str:
    """``text`` if it can stand in a header as it is, else the UUID that is made of it."""
    plain = text.isascii() and text.isprintable() and text == text.strip() and 0 < len(text) <= MOST_TEXT
    return text if plain else as_uuid(text)


def _payload(body: dict[str, Any]) -> Envelope:
    payload = body.get("payload")
    if not isinstance(payload, dict):
        raise ValueError("payload must be an object")
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise ValueError("metadata must be an object")
    return Envelope(
        type=_text(body, "event_type"),
        id=_text(body, "idempotency_key"),
        correlation=_text(body, "correlation_id"),
        time=_time(body, "timestamp"),
        producer=_text(body, "producer"),
        causation=_text(body, "causation_id", needed=False),
        metadata=metadata or {},
        payload=payload,
    )


def _flat(body: dict[str, Any], subject: str) -> Envelope:
    if "event_id" not in body:
        raise ValueError("it has neither event_type, as the form payload, nor event_id, as the form flat")
    return Envelope(
        type=subject,
        id=_text(body, "event_id"),
        correlation=_text(body, "case_id"),
        time=_time(body, "ts"),
        producer=_text(body, "producer", needed=False),
        trace=_text(body, "trace_id", needed=False),
        payload={name: value for name, value in body.items() if name not in HEAD},
    )


def _text(body: dict[str, Any], name: str, *, needed: bool = True) -> str:
    value = body.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or len(value) > MOST_TEXT or (needed and not value):
        raise ValueError(f"{name} must be a text of 1 to {MOST_TEXT} characters")
    return value


def _time(body: dict[str, Any], name: str) -> float:
    try:
        found = read_time(_text(body, name))
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{name} must be a time as ISO 8601 has it")
    return found
