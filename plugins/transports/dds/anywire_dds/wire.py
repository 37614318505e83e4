"""Tasks, answers and commands of `anywire.messages` as packed samples, and back."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Any, get_args

from cyclonedds.idl.types import int32

from anywire.errors import TransportError
from anywire.messages import (
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    FromAgent,
    Kind,
    Progress,
    ProgressState,
    TaskRequest,
    ToAgent,
)
from anywire.transport_tools import check_payload
from anywire_dds import types
from anywire_dds.cdr import HEADER, UNPACKABLE, Malformed, codec
from anywire_dds.contract import TopicName
from anywire_dds.endpoints import CODECS
from anywire_dds.types import FRAME_COMMAND, FRAME_MESSAGE, FRAME_PROGRESS, FRAME_RESULT

_REQUEST, _CONTROL, _RESPONSE = CODECS["request"].pack, CODECS["control"].pack, CODECS["response"].pack


@dataclass
class _StreamKey:
    attempt: int32
    task_id: str


_STREAM_KEY = codec(_StreamKey).pack

unpack_request = CODECS["request"].unpack
unpack_control = CODECS["control"].unpack
unpack_response = CODECS["response"].unpack


def _place(cls: Any, member: str) -> int:
    """Where this member is in what is unpacked of a type."""
    return [field.name for field in fields(cls)].index(member)


REQUEST_FRAME, REQUEST_BODY = _place(types.TaskRequest, "frame"), _place(types.TaskRequest, "body")
RESPONSE_FRAME, RESPONSE_EXTRA = _place(types.TaskResponse, "frame"), _place(types.TaskResponse, "extra")
RESPONSE_TASK, RESPONSE_ATTEMPT = _place(types.TaskResponse, "task_id"), _place(types.TaskResponse, "attempt")

REQUEST_MORE, RESPONSE_MORE = _place(types.TaskRequest, "more"), _place(types.TaskResponse, "more")

_HEADS = {"request": struct.Struct("<Q8xi"), "control": struct.Struct("<Qi")}
_HEADS["response"] = _HEADS["stream"] = struct.Struct("<Q32xi")
"""Where the session number and the frame of a packed sample are, behind its header."""
_FRAMES = {"request": REQUEST_FRAME, "control": _place(types.Control, "frame"), "response": RESPONSE_FRAME}
_FRAMES["stream"] = RESPONSE_FRAME


def head(topic: TopicName, data: bytes) -> tuple[int, int]:
    """The session number and the frame of a sample of which nothing else is read, but for one of another byte order or
    version of CDR, as no end with an identity writes it. Raises `Malformed`."""
    if data[:2] != HEADER[:2]:
        number, *_ = values = CODECS[topic].unpack(data)
        return number, values[_FRAMES[topic]]
    try:
        return _HEADS[topic].unpack_from(data, len(HEADER))
    except struct.error as error:
        raise Malformed(str(error)) from error


_KINDS, _PROGRESS_STATES = frozenset(get_args(Kind)), frozenset(get_args(ProgressState))

# To an agent


def pack_to_agent(link: int, message: ToAgent, limit: int) -> bytes:
    """Raises `PayloadTooLarge`, or `TransportError` for what cannot be encoded."""
    try:
        if isinstance(message, TaskRequest):
            sample = _pack_task(link, message)
        elif isinstance(message, Command):
            sample = _pack_command(link, message)
        else:
            return _pack_control(link, message)
    except UNPACKABLE as error:
        raise TransportError(f"a {type(message).__name__} that cannot be written to the wire: {error}") from error
    if len(sample) > limit:
        check_payload(message, limit)
    return sample


def _pack_task(link: int, task: TaskRequest) -> bytes:
    t = task
    return _REQUEST(
        link, t.time_left_ms, FRAME_MESSAGE, t.attempt, t.priority, t.credit, t.hops, t.attempts_left,
        t.stream, t.progress, t.hub_id, t.task_id, t.kind, t.model, t.body, t.resume, t.trace,
        t.tenant, t.session, t.parent, t.policy, t.hints, "", t.prefer, t.avoid,
    )  # fmt: skip


def _pack_command(link: int, command: Command) -> bytes:
    c = command
    return _REQUEST(
        link, c.time_left_ms, FRAME_COMMAND, 0, 0, c.credit, 0, 0, False, False, c.hub_id, c.id, c.name, "",
        c.arguments, "", "", c.tenant, "", "", c.role, "", "", c.target, (),
    )  # fmt: skip


def _pack_control(link: int, message: Cancel | Credit) -> bytes:
    if isinstance(message, Cancel):
        chunks, kind, reason = 0, "cancel", message.reason
    else:
        chunks, kind, reason = message.chunks, "credit", ""
    return _CONTROL(link, FRAME_MESSAGE, message.attempt, chunks, kind, message.hub_id, message.task_id, reason, "")


def to_request(values: tuple[Any, ...]) -> TaskRequest:
    """Raises `Malformed` for a kind that there is not."""
    (_, time_left_ms, _, attempt, priority, credit, hops, attempts_left, stream, progress, hub_id, task_id, kind,
     model, body, resume, trace, tenant, session, parent, policy, hints, _, prefer, avoid) = values  # fmt: skip
    if kind not in _KINDS:
        raise Malformed(f"a task of kind {kind[:40]!r}")
    return TaskRequest(
        hub_id, task_id, attempt, kind, model, body, stream, resume, priority, time_left_ms, credit, hops, trace,
        progress, attempts_left, tenant, session, parent, policy, hints, prefer, avoid,
    )  # fmt: skip


def to_command(values: tuple[Any, ...]) -> Command:
    (_, time_left_ms, _, _, _, credit, _, _, _, _, hub_id, command_id, name, _, arguments, _, _, tenant, _, _, role,
     _, _, target, _) = values  # fmt: skip
    return Command(hub_id, command_id, name, arguments, target, time_left_ms, credit, tenant, role)


# From an agent


def pack_from_agent(link: int, message: FromAgent, limit: int) -> bytes:
    """Raises `PayloadTooLarge`, or `TransportError` for what cannot be encoded."""
    try:
        if isinstance(message, Chunk):
            sample = _pack_chunk(link, message)
        elif isinstance(message, CommandResult):
            sample = _pack_result(link, message)
        else:
            sample = _pack_progress(link, message)
    except UNPACKABLE as error:
        raise TransportError(f"a {type(message).__name__} that cannot be written to the wire: {error}") from error
    if len(sample) > limit:
        check_payload(message, limit)
    return sample


def _pack_chunk(link: int, chunk: Chunk) -> bytes:
    c = chunk
    return _RESPONSE(
        link, c.received_ns, c.started_ns, c.first_ns, c.last_ns, FRAME_MESSAGE, c.attempt, c.seq, c.attempts_used,
        c.final, c.resumable, c.hub_id, c.task_id, c.extra, c.finish_reason, c.usage, c.error, "", c.deltas,
    )  # fmt: skip


def _pack_progress(link: int, progress: Progress) -> bytes:
    p = progress
    return _RESPONSE(
        link, 0, 0, 0, 0, FRAME_PROGRESS, p.attempt, 0, 0, False, False, p.hub_id, p.task_id, p.detail, p.state,
        "", "", "", (),
    )  # fmt: skip


def _pack_result(link: int, result: CommandResult) -> bytes:
    r = result
    return _RESPONSE(
        link, 0, 0, 0, 0, FRAME_RESULT, 0, r.seq, 0, r.final, False, r.hub_id, r.id, r.data, "", "", r.error, "", (),
    )  # fmt: skip


def to_chunk(values: tuple[Any, ...]) -> Chunk:
    (_, received_ns, started_ns, first_ns, last_ns, _, attempt, seq, attempts_used, is_final, resumable,
     hub_id, task_id, extra, finish_reason, usage, error, _, deltas) = values  # fmt: skip
    return Chunk(
        hub_id, task_id, attempt, seq, deltas, extra, is_final, finish_reason, usage, error,
        received_ns, started_ns, first_ns, last_ns, resumable, attempts_used,
    )  # fmt: skip


def to_progress(values: tuple[Any, ...]) -> Progress:
    """Raises `Malformed` for a state that there is not."""
    _, _, _, _, _, _, attempt, _, _, _, _, hub_id, task_id, detail, state, *_ = values
    if state not in _PROGRESS_STATES:
        raise Malformed(f"progress of state {state[:40]!r}")
    return Progress(hub_id, task_id, attempt, state, detail)


def to_result(values: tuple[Any, ...]) -> CommandResult:
    _, _, _, _, _, _, _, seq, _, is_final, _, hub_id, command_id, data, _, _, error, *_ = values
    return CommandResult(hub_id, command_id, seq, data, is_final, error)


def stream_key(task_id: str, attempt: int) -> bytes:
    """The key of a stream's instance, as samples of it are packed."""
    return _STREAM_KEY(attempt, task_id)
