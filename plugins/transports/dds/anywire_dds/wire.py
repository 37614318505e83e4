"""Messages of `anywire.messages` as packed samples, and back."""

import struct
from dataclasses import dataclass
from typing import Any

import msgspec
from cyclonedds.idl.types import int32

from anywire.errors import InvalidRequest, PayloadTooLarge
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest, ToAgent
from anywire_dds.cdr import codec
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

_OVERHEAD = 64 * 1024
"""What a sample may be larger than the limit of its texts: names, numbers, padding."""


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a HELLO says: who speaks, and the number of its session. ``status`` is the agent's newest report;
    ``deadline_ms`` and ``priorities`` are what the hub asks the agent's writers for."""

    name: str
    incarnation: int
    session: int
    status: AgentStatus | None = None
    revision: int = 0
    deadline_ms: int = 0
    priorities: tuple[int, ...] = ()


_hello_text = msgspec.json.Encoder()
_hello = msgspec.json.Decoder(Hello)
_gauges = msgspec.json.Decoder(dict[str, float])


def read_hello(text: str) -> Hello | None:
    """None when it is not one: then it is as if it had not come."""
    try:
        return _hello.decode(text)
    except msgspec.DecodeError:
        return None


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
    return int(text) if text.isascii() and text.isdigit() else 0


def pack_to_agent(link: int, message: ToAgent, limit: int) -> bytes:
    """Raises `PayloadTooLarge`, or `InvalidRequest` for what no wire can carry."""
    try:
        if isinstance(message, TaskRequest):
            m = message
            sample = _REQUEST(
                link, m.time_left_ms, FRAME_MESSAGE, m.attempt, m.priority, m.credit, m.hops, m.stream,
                m.hub_id, m.task_id, m.kind, m.model, m.body, m.resume, m.trace,
            )  # fmt: skip
            if len(sample) > limit:
                _check(len(m.body.encode()), len(sample), limit)
            return sample
        return _pack_control(link, message)
    except (struct.error, UnicodeEncodeError) as error:
        raise InvalidRequest(f"a {type(message).__name__} that cannot be written to the wire: {error}") from error


def _pack_control(link: int, message: Cancel | Credit | Drain) -> bytes:
    match message:
        case Cancel(hub_id, task_id, attempt, reason):
            return _CONTROL(link, FRAME_MESSAGE, attempt, 0, "cancel", hub_id, task_id, reason)
        case Credit(hub_id, task_id, attempt, chunks):
            return _CONTROL(link, FRAME_MESSAGE, attempt, chunks, "credit", hub_id, task_id, "")
        case Drain(hub_id, reason):
            return _CONTROL(link, FRAME_MESSAGE, 0, 0, "drain", hub_id, "", reason)


def pack_chunk(link: int, chunk: Chunk, limit: int) -> bytes:
    """Raises `PayloadTooLarge`, or `InvalidRequest` for what no wire can carry."""
    c = chunk
    try:
        sample = _RESPONSE(
            link, c.received_ns, c.started_ns, c.first_ns, c.last_ns, FRAME_MESSAGE, c.attempt, c.seq, c.final,
            c.hub_id, c.task_id, c.extra, c.finish_reason, c.usage, c.error, c.deltas,
        )  # fmt: skip
    except (struct.error, UnicodeEncodeError) as error:
        raise InvalidRequest(f"a chunk that cannot be written to the wire: {error}", task_id=c.task_id) from error
    if len(sample) > limit:
        _check(len(c.extra.encode()) + sum(len(each.encode()) for each in c.deltas), len(sample), limit)
    return sample


def _check(texts: int, size: int, limit: int) -> None:
    if texts > limit or size > limit + _OVERHEAD:
        raise PayloadTooLarge(
            f"{max(texts, size - _OVERHEAD)} bytes are over the DDS transport's limit of {limit} (max_message_bytes)"
        )


def to_request(values: tuple[Any, ...]) -> TaskRequest:
    (_, time_left_ms, _, attempt, priority, credit, hops, stream, hub_id, task_id, kind, model, body, resume, trace) = (
        values
    )
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
    return CODECS["status"].pack(
        status.incarnation, revision, status.slots, status.active, status.queued,
        status.agent_id, status.state, status.detail, msgspec.json.encode(status.resources).decode(), status.models,
    )  # fmt: skip


def to_status(values: tuple[Any, ...]) -> tuple[int, AgentStatus]:
    """The report and its revision. Raises `msgspec.DecodeError` when its gauges are not an object of numbers."""
    incarnation, revision, slots, active, queued, agent_id, state, detail, resources, models = values
    gauges = _gauges.decode(resources)
    return revision, AgentStatus(agent_id, incarnation, state, models, slots, active, queued, gauges, detail)
