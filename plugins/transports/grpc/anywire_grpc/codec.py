"""Messages to protobuf and back, each struct of `anywire.messages` to the message of that name in ``link.proto``.

Fields have the same names and the same order on both sides, so nothing here names them, apart from the three
enumerations. Every message is encoded as a frame of its own: frames that wait are joined by concatenating them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, EncodeError, Message
from msgspec.structs import asdict, fields, replace

from anywire.errors import PayloadTooLarge
from anywire.large_body import LARGE_BYTES
from anywire.messages import (
    MAX_DELTAS,
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    FromAgent,
    HubInfo,
    Kind,
    Progress,
    ProgressState,
    State,
    TaskRequest,
    ToAgent,
)
from anywire.offers import MAX_OFFERS_BYTES
from anywire.transport import MAX_MESSAGE_BYTES
from anywire.transport_tools import check_payload
from anywire_grpc.faults import mapped
from anywire_grpc.large_task import joined, split
from anywire_grpc.link_pb2 import AgentFrame, HubFrame
from anywire_grpc.link_pb2 import Kind as WireKind
from anywire_grpc.link_pb2 import ProgressState as WireProgressState
from anywire_grpc.link_pb2 import State as WireState
from anywire_grpc.link_pb2 import TaskRequest as WireTaskRequest

T = TypeVar("T")

_KINDS: dict[Kind, WireKind] = {
    "chat": WireKind.CHAT,
    "completion": WireKind.COMPLETION,
    "embedding": WireKind.EMBEDDING,
    "rerank": WireKind.RERANK,
    "tokenize": WireKind.TOKENIZE,
    "detokenize": WireKind.DETOKENIZE,
    "transcription": WireKind.TRANSCRIPTION,
    "speech": WireKind.SPEECH,
    "image": WireKind.IMAGE,
}
_STATES: dict[State, WireState] = {
    "starting": WireState.STARTING,
    "ready": WireState.READY,
    "draining": WireState.DRAINING,
    "failed": WireState.FAILED,
}


_PROGRESS_STATES: dict[ProgressState, WireProgressState] = {
    "queued": WireProgressState.QUEUED,
    "loading": WireProgressState.LOADING,
    "running": WireProgressState.RUNNING,
    "tool": WireProgressState.TOOL,
}


def _task(task: TaskRequest) -> dict[str, Any]:
    return asdict(task) | {"kind": _KINDS[task.kind]}


def _status(status: AgentStatus) -> dict[str, Any]:
    return asdict(status) | {"state": _STATES[status.state]}


def _progress(progress: Progress) -> dict[str, Any]:
    return asdict(progress) | {"state": _PROGRESS_STATES[progress.state]}


_TO_AGENT: dict[type[ToAgent], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    TaskRequest: ("tasks", _task),
    Cancel: ("cancels", asdict),
    Credit: ("credits", asdict),
    Command: ("commands", asdict),
}
_FROM_AGENT: dict[type[FromAgent], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    Chunk: ("chunks", asdict),
    CommandResult: ("results", asdict),
    Progress: ("progress", _progress),
}

ENVELOPE_BYTES = 1024 * 1024 + 4 * MAX_OFFERS_BYTES
"""Bytes of everything in a message that is no payload: ids, offers, gauges."""

WORST_GROWTH = 3
"""Bytes that protobuf makes of one byte of payload at worst: where it is a delta of its own, a tag and a length are
added."""

_ODD = (UnicodeError, ValueError, TypeError, OverflowError, AttributeError, KeyError, EncodeError)
"""What is raised for a value of another type than the message's, half a surrogate pair, an integer over 63 bits, a
state that is none."""


def encoded_limit(max_message_bytes: int) -> int:
    """Bytes that the encoding of a message of legal size may have; every receiver takes so many."""
    return WORST_GROWTH * max_message_bytes + ENVELOPE_BYTES


_hub_frame: Callable[..., Message] = HubFrame
_agent_frame: Callable[..., Message] = AgentFrame
_wire_task: Callable[..., Message] = WireTaskRequest


def _encoded(name: str, frame: Callable[[], Message]) -> bytes:
    """A frame that holds a ``name``. Raises `TransportError` for what protobuf cannot carry, see `_ODD`."""
    try:
        return frame().SerializeToString()
    except _ODD as error:
        raise mapped(error, f"encoding a {name}") from error


def encode_to_agent(message: ToAgent, max_message_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """Raises `PayloadTooLarge`, or `TransportError` for what protobuf cannot carry."""
    field, as_fields = _TO_AGENT[type(message)]
    check_size(message, max_message_bytes)
    if type(message) is TaskRequest and len(message.body) > LARGE_BYTES:
        return _within(_large_task(message), max_message_bytes)
    data = _encoded(type(message).__name__, lambda: _hub_frame(**{field: (as_fields(message),)}))
    return _within(data, max_message_bytes)


def _large_task(task: TaskRequest) -> bytes:
    rest = _encoded("TaskRequest", lambda: _wire_task(**(_task(task) | {"body": ""})))
    try:
        text = task.body.encode()
    except UnicodeError as error:
        raise mapped(error, "encoding a TaskRequest") from error
    return joined(rest, text)


def encode_from_agent(message: FromAgent, max_message_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """Raises as `encode_to_agent` does."""
    field, as_fields = _FROM_AGENT[type(message)]
    check_size(message, max_message_bytes)
    data = _encoded(type(message).__name__, lambda: _agent_frame(**{field: (as_fields(message),)}))
    return _within(data, max_message_bytes)


def check_size(message: Any, max_message_bytes: int) -> None:
    """Raises `PayloadTooLarge`, or `TransportError` for texts that are something else."""
    try:
        check_payload(message, max_message_bytes)
    except _ODD as error:
        raise mapped(error, f"encoding a {type(message).__name__}") from error


def _within(data: bytes, max_message_bytes: int) -> bytes:
    if len(data) > encoded_limit(max_message_bytes):
        raise PayloadTooLarge(
            f"the message has {len(data)} bytes as protobuf, its receiver takes {encoded_limit(max_message_bytes)}: it "
            "has too much beside its payload"
        )
    return data


def encode_status(status: AgentStatus) -> bytes:
    return _encoded("AgentStatus", lambda: AgentFrame(statuses=(_status(status),)))


def encode_agent_hello(info: AgentInfo, status: AgentStatus) -> bytes:
    return _encoded("AgentHello", lambda: AgentFrame(hello={"info": asdict(info), "status": _status(status)}))


def encode_hub_hello(info: HubInfo) -> bytes:
    return _encoded("HubHello", lambda: HubFrame(hello=asdict(info)))


def decode_agent_frame(data: bytes) -> AgentFrame:
    """Raises `DecodeError` for anything that is none."""
    return AgentFrame.FromString(data)


def decode_hub_frame(data: bytes) -> tuple[HubFrame, str | None]:
    """A frame, and the body of its only task where that is large: it is left out of the frame then. Raises
    `DecodeError` for anything that is none."""
    if len(data) > LARGE_BYTES and (parts := split(data)) is not None:
        return HubFrame.FromString(parts[0]), parts[1]
    return HubFrame.FromString(data), None


def _reader(cls: type[T], **conversions: Callable[[Any], Any]) -> Callable[[Message], T]:
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    values_of: Callable[[Message], Sequence[Any]] = attrgetter(*names)
    convert = [(names.index(name), conversion) for name, conversion in conversions.items()]

    def read(message: Message) -> T:
        values = list(values_of(message))
        for place, conversion in convert:
            values[place] = conversion(values[place])
        return cls(*values)

    return read


def _deltas(texts: Sequence[str]) -> tuple[str, ...]:
    if len(texts) > MAX_DELTAS:
        raise DecodeError(f"a chunk has {len(texts)} deltas, the limit is {MAX_DELTAS}")
    return tuple(texts)


def _name_in(names: Mapping[Any, int]) -> Callable[[int], str]:
    by_number = {number: name for name, number in names.items()}

    def name(number: int) -> str:
        try:
            return str(by_number[number])
        except KeyError as error:
            raise DecodeError(f"{number} stands for none of {', '.join(by_number.values())}") from error

    return name


def read_tasks(frame: HubFrame, body: str | None) -> list[TaskRequest]:
    """The tasks of what `decode_hub_frame` gives. Raises `DecodeError` for a kind that there is not."""
    found = [_read_task(task) for task in frame.tasks]
    return found if body is None else [replace(found[0], body=body)]


_read_task = _reader(TaskRequest, kind=_name_in(_KINDS), prefer=tuple, avoid=tuple)
read_cancel = _reader(Cancel)
read_credit = _reader(Credit)
read_command = _reader(Command, target=tuple)
read_chunk = _reader(Chunk, deltas=_deltas)
read_result = _reader(CommandResult)
read_progress = _reader(Progress, state=_name_in(_PROGRESS_STATES))
read_status = _reader(AgentStatus, state=_name_in(_STATES), resources=dict)
read_agent_info = _reader(AgentInfo, capabilities=tuple)
read_hub_info = _reader(HubInfo)
