"""The wire format: 4 bytes length, 1 byte kind, then the message in msgpack."""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.errors import PayloadTooLarge, TransportError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest


class Knock(msgspec.Struct, frozen=True):
    """An agent that has come later than this hub asks it to connect to the socket of that name."""

    socket: str


# A message's place in this list is its kind on the wire: add at the end only.
KINDS: tuple[type[Any], ...] = (
    Knock,
    HubInfo,
    AgentInfo,
    AgentStatus,
    TaskRequest,
    Chunk,
    Cancel,
    Credit,
    Drain,
)
HEAD = 5

_encode = msgspec.msgpack.Encoder().encode
_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_DECODERS = [msgspec.msgpack.Decoder(kind) for kind in KINDS]


def pack(message: Any, limit: int) -> bytes:
    """A message as a frame. Raises `PayloadTooLarge`, or `TransportError` for text that is no valid Unicode."""
    try:
        data = _encode(message)
    except UnicodeEncodeError as error:
        raise TransportError(f"a {type(message).__name__} holds text that is no valid Unicode: {error}") from error
    if len(data) > limit:
        raise PayloadTooLarge(
            f"the message has {len(data)} bytes, the limit is {limit}: raise max_message_bytes at both ends"
        )
    return len(data).to_bytes(4, "big") + bytes((_NUMBERS[type(message)],)) + data


class Unpacker:
    """Makes messages of the bytes of a stream, however they are cut."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Any:
        """The next whole message, or None. Raises `TransportError` for what is none."""
        if len(self._buffer) < HEAD:
            return None
        size, number = int.from_bytes(self._buffer[:4], "big"), self._buffer[4]
        if size > self._limit:
            raise TransportError(f"a message of {size} bytes is over the limit of {self._limit} (max_message_bytes)")
        if len(self._buffer) < HEAD + size:
            return None
        data = bytes(self._buffer[HEAD : HEAD + size])
        del self._buffer[: HEAD + size]
        try:
            return _DECODERS[number].decode(data)
        except (IndexError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise TransportError(f"not a message of this transport: {error}") from error
