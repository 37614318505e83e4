"""The wire format: one ZeroMQ frame per message, a kind byte and then the fields as a msgpack array.

Field names do not travel (35 instead of 147 bytes for a token), so both ends must know the same fields:
`PROTOCOL`, exchanged in the first message each way, says so. Several messages may travel as the frames of one ZeroMQ
message; that means nothing but that they had been waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import astuple, fields

from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest
from anywire.transport import Plane
from anywire_zeromq.faults import mapped

PROTOCOL = "anywire-zeromq/2"


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


Message = TaskRequest | Chunk | Cancel | Credit | Drain | AgentStatus | AgentHello | HubHello | Ready | Goodbye

_KINDS: dict[bytes, type[Message]] = {
    b"T": TaskRequest,
    b"K": Chunk,
    b"X": Cancel,
    b"C": Credit,
    b"D": Drain,
    b"S": AgentStatus,
    b"A": AgentHello,
    b"H": HubHello,
    b"R": Ready,
    b"F": Goodbye,
}

_pack = msgspec.msgpack.Encoder().encode
_KIND_OF: dict[type, bytes] = {cls: kind for kind, cls in _KINDS.items()}


def _decoder(cls: type[Message]) -> Callable[[bytes | memoryview], Message]:
    types = tuple(field.type for field in fields(cls))
    unpack = msgspec.msgpack.Decoder(tuple[types] if types else tuple[()]).decode  # type: ignore[valid-type]

    def decode(data: bytes | memoryview) -> Message:
        values: tuple[Any, ...] = unpack(data)
        return cls(*values)

    return decode


_DECODERS: dict[int, Callable[[bytes | memoryview], Message]] = {kind[0]: _decoder(cls) for kind, cls in _KINDS.items()}


def encode(message: Message) -> bytes:
    """Raises `TransportError` for text that is no valid Unicode (half a surrogate pair)."""
    try:
        return _KIND_OF[type(message)] + _pack(astuple(message))
    except UnicodeEncodeError as error:
        raise mapped(error, f"encoding a {type(message).__name__}") from error


def decode(data: bytes) -> Message:
    """Raises `msgspec.MsgspecError` for anything that is no message."""
    decoder = _DECODERS.get(data[0]) if data else None
    if decoder is None:
        raise msgspec.DecodeError(f"it begins with {data[:1]!r}")
    try:
        return decoder(memoryview(data)[1:])
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"its text is no UTF-8: {error}") from error


def is_goodbye(data: bytes) -> bool:
    """Whether it is a `Goodbye`, without reading the rest."""
    return data[:1] == _KIND_OF[Goodbye]
