"""Messages as bytes: msgpack behind one byte that names the kind."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from anywire.errors import TransportError
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
from anywire.offers import MAX_OFFERS_BYTES
from anywire.transport_tools.frames import HEAD


class Accepted(msgspec.Struct, frozen=True):
    """A hub's answer to an agent's hello: the link is there, tasks may follow."""


class Goodbye(msgspec.Struct, frozen=True):
    """The last message of a link. ``refused`` when the sender will not have this life of the peer as a link at all."""

    reason: str = ""
    refused: bool = False


# A message's place in this list is its kind on the wire: add at the end only.
KINDS: tuple[type[Any] | None, ...] = (
    HubInfo,
    AgentInfo,
    AgentStatus,
    TaskRequest,
    Chunk,
    Cancel,
    Credit,
    None,  # a drain, before it was a command
    Accepted,
    Goodbye,
    Command,
    CommandResult,
    Progress,
)
OWN_KINDS = 128
"""The number of the first kind that a transport adds of its own."""


SMALL = 8192
"""Bytes of a message that are sooner copied than looked at where they are."""
_head = struct.Struct(">IB").pack


class UnknownKind(TransportError):
    """A message of a kind that this version does not know. One of a peer that has joined is ignored: versions that are
    neighbours work together."""


class Codec:
    """Encodes and decodes the messages of `anywire.messages`, `Accepted`, `Goodbye` and a transport's own.

    ``own`` are msgspec structs that this transport sends besides, at most 128; their order is their number on the
    wire, so new ones are added at the end. Both ends need the same. A field that the reader does not know is ignored.
    """

    def __init__(self, *own: type[Any]) -> None:
        self._numbers = {kind: number for number, kind in enumerate(KINDS) if kind is not None}
        self._numbers |= {kind: OWN_KINDS + number for number, kind in enumerate(own)}
        self._decoders = {number: msgspec.msgpack.Decoder(kind).decode for kind, number in self._numbers.items()}
        self._encode = msgspec.msgpack.Encoder().encode

    def encode(self, message: Any) -> bytes:
        """Raises `TransportError` for what cannot be encoded: text that is no Unicode, a number over 64 bits."""
        return self.framed(message)[HEAD:]

    def framed(self, message: Any) -> bytes:
        """`encode` with the length in front, as `anywire.transport_tools.frame` puts it there."""
        try:
            number, data = self._numbers[type(message)], self._encode(message)
            return _head(len(data) + 1, number) + data
        except UnicodeEncodeError as error:
            raise TransportError(f"a {type(message).__name__} holds text that is no valid Unicode: {error}") from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise TransportError(f"a {type(message).__name__} cannot be encoded: {error}") from error

    def decode(self, data: bytes) -> Any:
        """Raises `TransportError` for bytes that are no message, of them `UnknownKind` for another kind."""
        try:
            return self._decoders[data[0]](data[1:] if len(data) < SMALL else memoryview(data)[1:])
        except (IndexError, KeyError) as error:
            raise UnknownKind("not a message of this transport: its kind is unknown") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise TransportError(f"not a message of this transport: {error}") from error


def encoded_limit(max_message_bytes: int) -> int:
    """Bytes that the encoding of a message of legal size may have: short texts double, and an envelope is added."""
    return 2 * max_message_bytes + ENVELOPE_BYTES


ENVELOPE_BYTES = 1024 * 1024 + 4 * MAX_OFFERS_BYTES
"""Room for ids, offers and everything else that is no payload."""
