"""Messages to protobuf and back, each struct of `anywire.messages` to the message of that name in ``link.proto``.

Fields have the same names and the same order on both sides, so nothing here names them, apart from the two
enumerations. Every message is encoded as a frame of its own: frames that wait are joined by concatenating them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, EncodeError, Message
from msgspec.structs import asdict, fields

from anywire.errors import PayloadTooLarge
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
from anywire.transport import MAX_MESSAGE_BYTES
from anywire.transport_tools import check_payload
from anywire_grpc.faults import mapped
from anywire_grpc.link_pb2 import AgentFrame, HubFrame
from anywire_grpc.link_pb2 import Kind as WireKind
from anywire_grpc.link_pb2 import State as WireState

T = TypeVar("T")

_KINDS: dict[Kind, WireKind] = {
    "chat": WireKind.CHAT,
    "completion": WireKind.COMPLETION,
    "embedding": WireKind.EMBEDDING,
}
_STATES: dict[State, WireState] = {
    "starting": WireState.STARTING,
    "ready": WireState.READY,
    "draining": WireState.DRAINING,
    "failed": WireState.FAILED,
}


def _task(task: TaskRequest) -> dict[str, Any]:
    return asdict(task) | {"kind": _KINDS[task.kind]}


def _status(status: AgentStatus) -> dict[str, Any]:
    return asdict(status) | {"state": _STATES[status.state]}


_TO_AGENT: dict[type[ToAgent], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    TaskRequest: ("tasks", _task),
    Cancel: ("cancels", asdict),
    Credit: ("credits", asdict),
    Drain: ("drains", asdict),
}


ENVELOPE_BYTES = 1024 * 1024
"""Bytes of everything in a message that is no payload: ids, names of models, gauges."""

WORST_GROWTH = 3
"""Bytes that protobuf makes of one byte of payload at worst: where it is a delta of its own, a tag and a length are
added."""

_ODD = (UnicodeError, ValueError, TypeError, OverflowError, AttributeError, EncodeError)
"""What is raised for a value of another type than the message's, half a surrogate pair, an integer over 63 bits."""


def encoded_limit(max_message_bytes: int) -> int:
    """Bytes that the encoding of a message of legal size may have; every receiver takes so many."""
    return WORST_GROWTH * max_message_bytes + ENVELOPE_BYTES


def _encoded(frame: Callable[..., Message], name: str, **content: Any) -> bytes:
    """Raises `TransportError` for what protobuf cannot carry, see `_ODD`."""
    try:
        return frame(**content).SerializeToString()
    except _ODD as error:
        raise mapped(error, f"encoding a {name}") from error


def encode_to_agent(message: ToAgent, max_message_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """Raises `PayloadTooLarge`, or `TransportError` for what protobuf cannot carry."""
    field, as_fields = _TO_AGENT[type(message)]
    check_size(message, max_message_bytes)
    return _within(_encoded(HubFrame, type(message).__name__, **{field: (as_fields(message),)}), max_message_bytes)


def encode_chunk(chunk: Chunk, max_message_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """Raises as `encode_to_agent` does."""
    check_size(chunk, max_message_bytes)
    return _within(_encoded(AgentFrame, "Chunk", chunks=(asdict(chunk),)), max_message_bytes)


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
    return _encoded(AgentFrame, "AgentStatus", statuses=(_status(status),))


def encode_agent_hello(info: AgentInfo, status: AgentStatus) -> bytes:
    return _encoded(AgentFrame, "AgentHello", hello={"info": asdict(info), "status": _status(status)})


def encode_hub_hello(info: HubInfo) -> bytes:
    return _encoded(HubFrame, "HubHello", hello=asdict(info))


def decode_agent_frame(data: bytes) -> AgentFrame:
    """Raises `DecodeError` for anything that is none."""
    return AgentFrame.FromString(data)


def decode_hub_frame(data: bytes) -> HubFrame:
    """Raises `DecodeError` for anything that is none."""
    return HubFrame.FromString(data)


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


def _name_in(names: Mapping[Any, int]) -> Callable[[int], str]:
    by_number = {number: name for name, number in names.items()}

    def name(number: int) -> str:
        try:
            return str(by_number[number])
        except KeyError as error:
            raise DecodeError(f"{number} stands for none of {', '.join(by_number.values())}") from error

    return name


read_task = _reader(TaskRequest, kind=_name_in(_KINDS))
read_cancel = _reader(Cancel)
read_credit = _reader(Credit)
read_drain = _reader(Drain)
read_chunk = _reader(Chunk, deltas=tuple)
read_status = _reader(AgentStatus, state=_name_in(_STATES), models=tuple, resources=dict)
read_agent_info = _reader(AgentInfo, capabilities=tuple)
read_hub_info = _reader(HubInfo)
