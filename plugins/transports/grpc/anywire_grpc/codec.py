"""Messages to protobuf and back, each struct of `anywire.messages` to the message of that name in ``link.proto``.

Fields have the same names and the same order on both sides, so nothing here names them, apart from the two
enumerations. Every message is encoded as a frame of its own: frames that wait are joined by concatenating them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from msgspec.structs import asdict, fields

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


def _encoded(frame: Callable[..., Message], name: str, **content: Any) -> bytes:
    """Raises `TransportError` for what protobuf cannot carry: half a surrogate pair, an integer over 63 bits."""
    try:
        return frame(**content).SerializeToString()
    except (UnicodeError, ValueError) as error:
        raise mapped(error, f"encoding a {name}") from error


def encode_to_agent(message: ToAgent) -> bytes:
    field, as_fields = _TO_AGENT[type(message)]
    return _encoded(HubFrame, type(message).__name__, **{field: (as_fields(message),)})


def encode_chunk(chunk: Chunk) -> bytes:
    return _encoded(AgentFrame, "Chunk", chunks=(asdict(chunk),))


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
