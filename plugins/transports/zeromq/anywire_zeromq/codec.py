"""The wire format: one ZeroMQ frame per message, a kind byte and then the fields as a msgpack array.

Field names do not travel (35 instead of 147 bytes for a token): fields are known by their place, so new ones are added
at the end. A reader ignores those it does not know, and takes the defaults for those that are missing. The infos and
the status in a hello do have their fields' names, so that a hello of any version says whose it is. Several messages may
travel as the frames of one ZeroMQ message; that means nothing but that they had been waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec
from msgspec.structs import astuple

from anywire.large_body import LARGE_BYTES
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    TaskRequest,
)
from anywire.transport import Plane
from anywire.transport_tools import UnknownKind, check_protocol
from anywire_zeromq.faults import mapped

PROTOCOL = "anywire-zeromq/2"
"""How frames look. What the messages are, `anywire.protocol` says."""


class AgentHello(msgspec.Struct, frozen=True):
    """An agent introduces itself, with its newest status."""

    protocol: str
    plane: Plane
    info: AgentInfo
    status: AgentStatus


class HubHello(msgspec.Struct, frozen=True):
    """A hub introduces itself."""

    protocol: str
    plane: Plane
    info: HubInfo


class Ready(msgspec.Struct, frozen=True):
    """The end that connected has read the other's hello: both directions work."""


class Goodbye(msgspec.Struct, frozen=True):
    """The sender has ended the link, or refuses it; ``reason`` is part of a sentence for a person."""

    reason: str


Message = (
    TaskRequest
    | Command
    | Cancel
    | Credit
    | Chunk
    | Progress
    | CommandResult
    | AgentStatus
    | AgentHello
    | HubHello
    | Ready
    | Goodbye
)

# `D` was a drain before that was a command; it is not used again.
_KINDS: dict[bytes, type[Message]] = {
    b"T": TaskRequest,
    b"K": Chunk,
    b"X": Cancel,
    b"C": Credit,
    b"M": Command,
    b"O": CommandResult,
    b"P": Progress,
    b"S": AgentStatus,
    b"A": AgentHello,
    b"H": HubHello,
    b"R": Ready,
    b"F": Goodbye,
}


class _Speaker(msgspec.Struct, frozen=True):
    agent_id: str = ""
    hub_id: str = ""
    protocol: str = ""


class _Introduction(msgspec.Struct, frozen=True, array_like=True):
    """How every hello has begun so far, whatever its version."""

    protocol: str
    plane: str
    info: _Speaker


_encoder = msgspec.msgpack.Encoder()
_pack = _encoder.encode
_unpack_introduction = msgspec.msgpack.Decoder(_Introduction).decode
_KIND_OF: dict[type, bytes] = {cls: kind for kind, cls in _KINDS.items()}


def _decoder(cls: type[Message]) -> Callable[[bytes | memoryview], Message]:
    by_place = msgspec.defstruct(cls.__name__, [], bases=(cls,), array_like=True)
    unpack = msgspec.msgpack.Decoder(by_place).decode

    def decode(data: bytes | memoryview) -> Message:
        return cls(*astuple(unpack(data)))

    return decode


_DECODERS: dict[int, Callable[[bytes | memoryview], Message]] = {kind[0]: _decoder(cls) for kind, cls in _KINDS.items()}


def encode(message: Message) -> bytes:
    """Raises `TransportError` for text that is no valid Unicode (half a surrogate pair) and numbers over 64 bits."""
    try:
        if type(message) is TaskRequest and len(message.body) > LARGE_BYTES:
            # Not copied once more: the event loop does not run meanwhile.
            data = bytearray(_KIND_OF[TaskRequest])
            _encoder.encode_into(astuple(message), data, 1)
            return cast("bytes", data)  # ZeroMQ takes either
        return _KIND_OF[type(message)] + _pack(astuple(message))
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise mapped(error, f"encoding a {type(message).__name__}") from error


def decode(data: bytes) -> Message:
    """Raises `UnknownKind` for what another version may have sent, `msgspec.MsgspecError` for what is no message."""
    if not data:
        raise msgspec.DecodeError("it is empty")
    decoder = _DECODERS.get(data[0])
    if decoder is None:
        raise UnknownKind(f"a message that begins with {data[:1]!r} is of no kind that is known here")
    try:
        return decoder(memoryview(data)[1:])
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"its text is no UTF-8: {error}") from error
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error


def check_unreadable(data: bytes, own: HubInfo | AgentInfo) -> None:
    """Raises `LinkRefused` when ``data``, which cannot be read, is a hello of another version than ``own``."""
    if data[:1] not in (_KIND_OF[AgentHello], _KIND_OF[HubHello]):
        return
    try:
        peer = _unpack_introduction(memoryview(data)[1:]).info
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    if data[:1] == _KIND_OF[AgentHello]:
        check_protocol(AgentInfo(peer.agent_id, 0, protocol=peer.protocol), own)
    else:
        check_protocol(HubInfo(peer.hub_id, 0, protocol=peer.protocol), own)


def is_goodbye(data: bytes) -> bool:
    """Whether it is a `Goodbye`, without reading the rest."""
    return data[:1] == _KIND_OF[Goodbye]
