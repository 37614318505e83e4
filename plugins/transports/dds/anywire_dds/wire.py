"""Messages of `anywire.messages` as packed samples, and back."""

import struct
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import msgspec
from cyclonedds.idl.types import int32

from anywire.errors import PayloadTooLarge, TransportError
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Credit,
    Drain,
    HubInfo,
    Kind,
    State,
    TaskRequest,
    ToAgent,
)
from anywire.transport_tools import check_payload
from anywire_dds.cdr import Malformed, codec
from anywire_dds.config import PRIORITIES_MAX
from anywire_dds.endpoints import CODECS
from anywire_dds.types import FRAME_HELLO, FRAME_MESSAGE, FRAME_WINDOW

_REQUEST, _CONTROL, _RESPONSE = CODECS["request"].pack, CODECS["control"].pack, CODECS["response"].pack


@dataclass
class _StreamKey:
    attempt: int32
    task_id: str


_STREAM_KEY = codec(_StreamKey).pack

unpack_request = CODECS["request"].unpack
unpack_control = CODECS["control"].unpack
unpack_response = CODECS["response"].unpack
_STATUS = CODECS["status"].unpack

MAX_STATUS_BYTES = 1024 * 1024
MAX_MODELS = 1000
MAX_GAUGES = 1000
"""What one report may hold; a larger one is malformed."""

_STATES, _KINDS = frozenset(get_args(State)), frozenset(get_args(Kind))


_Level = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a HELLO says: who speaks, and the number of its session. ``status`` is the agent's newest report;
    ``deadline_ms`` and ``priorities`` are what the hub asks the agent's writers for."""

    name: str
    incarnation: int
    session: int
    status: AgentStatus | None = None
    revision: int = 0
    deadline_ms: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    priorities: Annotated[tuple[_Level, ...], msgspec.Meta(max_length=PRIORITIES_MAX)] = ()


_hello_text = msgspec.json.Encoder()
_hello = msgspec.json.Decoder(Hello)
_gauges = msgspec.json.Decoder(dict[str, float])


def read_hello(text: str) -> Hello | None:
    """None when it is not one: then it is as if it had not come."""
    if len(text) > MAX_STATUS_BYTES:
        return None
    try:
        hello = _hello.decode(text)
    except msgspec.DecodeError:
        return None
    status = hello.status
    if status is not None and not _in_bounds(status, hello.name, hello.incarnation):
        return None
    return hello


def _in_bounds(status: AgentStatus, agent_id: str, incarnation: int) -> bool:
    return (
        (status.agent_id, status.incarnation) == (agent_id, incarnation)
        and status.state in _STATES
        and min(status.slots, status.active, status.queued) >= 0
        and len(status.models) <= MAX_MODELS
        and len(status.resources) <= MAX_GAUGES
    )


def request_hello(hello: Hello, link: int) -> bytes:
    return _REQUEST(link, 0, FRAME_HELLO, 0, 0, 0, 0, False, "", "", "", "", _hello_text.encode(hello).decode(), "", "")


def control_hello(hello: Hello, link: int) -> bytes:
    return _CONTROL(link, FRAME_HELLO, 0, 0, "", "", "", _hello_text.encode(hello).decode())


def response_hello(hello: Hello, link: int) -> bytes:
    return _RESPONSE(
        link, 0, 0, 0, 0, FRAME_HELLO, 0, 0, False, "", "", _hello_text.encode(hello).decode(), "", "", "", ()
    )


def request_window(link: int, sent: int) -> bytes:
    return _REQUEST(link, 0, FRAME_WINDOW, 0, 0, 0, 0, False, "", "", "", "", str(sent), "", "")


def control_window(link: int, consumed: int) -> bytes:
    return _CONTROL(link, FRAME_WINDOW, 0, 0, "", "", "", str(consumed))


def response_window(link: int, consumed: int, task_id: str = "", attempt: int = 0) -> bytes:
    return _RESPONSE(link, 0, 0, 0, 0, FRAME_WINDOW, attempt, 0, False, "", task_id, str(consumed), "", "", "", ())


def window(text: str) -> int:
    return int(text) if len(text) <= 20 and text.isascii() and text.isdigit() else 0


def pack_to_agent(link: int, message: ToAgent, limit: int) -> bytes:
    """Raises `PayloadTooLarge`, or `TransportError` for what cannot be encoded."""
    try:
        if isinstance(message, TaskRequest):
            m = message
            sample = _REQUEST(
                link, m.time_left_ms, FRAME_MESSAGE, m.attempt, m.priority, m.credit, m.hops, m.stream,
                m.hub_id, m.task_id, m.kind, m.model, m.body, m.resume, m.trace,
            )  # fmt: skip
            if len(sample) > limit:
                check_payload(message, limit)
            return sample
        return _pack_control(link, message)
    except (struct.error, UnicodeEncodeError) as error:
        raise TransportError(f"a {type(message).__name__} that cannot be written to the wire: {error}") from error


def _pack_control(link: int, message: Cancel | Credit | Drain) -> bytes:
    match message:
        case Cancel(hub_id, task_id, attempt, reason):
            return _CONTROL(link, FRAME_MESSAGE, attempt, 0, "cancel", hub_id, task_id, reason)
        case Credit(hub_id, task_id, attempt, chunks):
            return _CONTROL(link, FRAME_MESSAGE, attempt, chunks, "credit", hub_id, task_id, "")
        case Drain(hub_id, reason):
            return _CONTROL(link, FRAME_MESSAGE, 0, 0, "drain", hub_id, "", reason)


def pack_chunk(link: int, chunk: Chunk, limit: int) -> bytes:
    """Raises `PayloadTooLarge`, or `TransportError` for what cannot be encoded."""
    c = chunk
    try:
        sample = _RESPONSE(
            link, c.received_ns, c.started_ns, c.first_ns, c.last_ns, FRAME_MESSAGE, c.attempt, c.seq, c.final,
            c.hub_id, c.task_id, c.extra, c.finish_reason, c.usage, c.error, c.deltas,
        )  # fmt: skip
    except (struct.error, UnicodeEncodeError) as error:
        raise TransportError(f"a chunk that cannot be written to the wire: {error}", task_id=c.task_id) from error
    if len(sample) > limit:
        check_payload(chunk, limit)
    return sample


def to_request(values: tuple[Any, ...]) -> TaskRequest:
    """Raises `Malformed` for a kind that there is not."""
    (_, time_left_ms, _, attempt, priority, credit, hops, stream, hub_id, task_id, kind, model, body, resume, trace) = (
        values
    )
    if kind not in _KINDS:
        raise Malformed(f"a task of kind {kind[:40]!r}")
    return TaskRequest(
        hub_id, task_id, attempt, kind, model, body, stream, resume, priority, time_left_ms, credit, hops, trace
    )


def to_chunk(values: tuple[Any, ...]) -> Chunk:
    (_, received_ns, started_ns, first_ns, last_ns, _, attempt, seq, is_final,
     hub_id, task_id, extra, finish_reason, usage, error, deltas) = values  # fmt: skip
    return Chunk(
        hub_id, task_id, attempt, seq, deltas, extra, is_final, finish_reason, usage, error,
        received_ns, started_ns, first_ns, last_ns,
    )  # fmt: skip


def stream_key(task_id: str, attempt: int) -> bytes:
    """The key of a stream's instance, as samples of it are packed."""
    return _STREAM_KEY(attempt, task_id)


def pack_agent(info: AgentInfo, lease_ms: int) -> bytes:
    return CODECS["register"].pack(
        info.incarnation, info.pid, lease_ms,
        info.agent_id, info.host, info.engine, info.specialization, info.device, info.boot_id, info.capabilities,
    )  # fmt: skip


def to_agent(values: tuple[Any, ...]) -> AgentInfo:
    incarnation, pid, lease_ms, agent_id, host, engine, specialization, device, boot_id, capabilities = values
    return AgentInfo(agent_id, incarnation, host, pid, engine, specialization, capabilities, device, boot_id, lease_ms)


def pack_hub(info: HubInfo, lease_ms: int) -> bytes:
    return CODECS["hub"].pack(info.incarnation, info.pid, lease_ms, info.hub_id, info.host)


def to_hub(values: tuple[Any, ...]) -> HubInfo:
    incarnation, pid, lease_ms, hub_id, host = values
    return HubInfo(hub_id, incarnation, host, pid, lease_ms)


def pack_status(status: AgentStatus, revision: int) -> bytes:
    """Raises `PayloadTooLarge` for more than a report may hold, or `TransportError` for what cannot be encoded."""
    try:
        sample = CODECS["status"].pack(
            status.incarnation, revision, status.slots, status.active, status.queued,
            status.agent_id, status.state, status.detail, msgspec.json.encode(status.resources).decode(), status.models,
        )  # fmt: skip
    except (struct.error, UnicodeEncodeError) as error:
        raise TransportError(f"a report that cannot be written to the wire: {error}") from error
    if len(sample) > MAX_STATUS_BYTES or len(status.models) > MAX_MODELS or len(status.resources) > MAX_GAUGES:
        raise PayloadTooLarge(
            f"a report of {len(sample)} bytes, {len(status.models)} models and {len(status.resources)} gauges; no more "
            f"than {MAX_STATUS_BYTES} bytes, {MAX_MODELS} models and {MAX_GAUGES} gauges are possible"
        )
    return sample


def read_status(data: bytes) -> tuple[int, AgentStatus]:
    """The report and its revision. Raises `Malformed` for one that is out of type or bounds."""
    if len(data) > MAX_STATUS_BYTES:
        raise Malformed(f"{len(data)} bytes are no report")
    incarnation, revision, slots, active, queued, agent_id, state, detail, resources, models = _STATUS(data)
    try:
        gauges = _gauges.decode(resources)
    except msgspec.DecodeError as error:
        raise Malformed(f"gauges that are no object of numbers: {error}") from error
    status = AgentStatus(agent_id, incarnation, state, models, slots, active, queued, gauges, detail)
    if not _in_bounds(status, agent_id, incarnation):
        raise Malformed(
            f"state {state[:40]!r}, {slots} slots, {active} active, {queued} queued, {len(models)} models, "
            f"{len(gauges)} gauges"
        )
    return revision, status
