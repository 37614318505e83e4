"""The wire format: JSON objects with the fields' names, one a line where several follow each other.

    POST {hub}/agents/register   Registration → Welcome                an agent makes itself known
    GET  {agent}/agent           → AgentHello                          who is there
    POST {agent}/link            HubHello → LinkLine, LinkLine …       lives as long as the link; its end is the loss
    POST {agent}/tasks           TaskRequest → Chunk, Chunk …          one per attempt
    POST {agent}/control         ControlLine, ControlLine … → 200      cancel, credit, drain

Every request carries ``Authorization: Bearer`` when a token is set; tasks and control name their link in
`LINK_HEADER`, and tasks their place in the order sent in `ORDER_HEADER`, since they travel on several connections.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from anywire.errors import PayloadTooLarge
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest
from anywire.transport import Plane
from anywire.transport_tools import check_payload
from anywire_http.faults import mapped

PROTOCOL = "anywire-http/1"

LINK_HEADER = "Anywire-Link"
ORDER_HEADER = "Anywire-Order"
JSON, JSON_LINES = "application/json", "application/x-ndjson"

ENVELOPE_BYTES = 1024 * 1024
"""Bytes of everything in a message that is no payload: ids, names of models, gauges, several control messages."""

WORST_ESCAPE = 9
"""Bytes that JSON makes of one byte of payload at worst: a control character is six (``\\u0001``), and where it is a
delta of its own, quotes and a comma are added."""

MAX_NUMBER = 2**63
"""What every number in a chunk is below."""

MAX_LEASE_MS = 24 * 60 * 60 * 1000
"""Longest lease that a peer may have: a day."""

MAX_ID_CHARS = 1024
"""Longest id that a peer may have."""

T = TypeVar("T")


class Registration(msgspec.Struct, frozen=True):
    """An agent says where it can be reached; the hub answers when it has reached it."""

    protocol: str
    plane: Plane
    url: str
    info: AgentInfo


class Welcome(msgspec.Struct, frozen=True):
    """The hub is linked to the agent now."""

    protocol: str
    hub: HubInfo


class HubHello(msgspec.Struct, frozen=True):
    """A hub opens a link."""

    protocol: str
    plane: Plane
    info: HubInfo


class AgentHello(msgspec.Struct, frozen=True):
    """An agent says who it is and how it is."""

    protocol: str
    plane: Plane
    info: AgentInfo
    status: AgentStatus


class LinkLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a link: the first is ``hello``, the last may be ``goodbye``."""

    hello: AgentHello | None = None
    status: AgentStatus | None = None
    goodbye: str = ""


class ControlLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One control message: exactly one field is set."""

    cancel: Cancel | None = None
    credit: Credit | None = None
    drain: Drain | None = None


class Fault(msgspec.Struct, frozen=True):
    """The body of every answer that is not 200."""

    error: str


_encode = msgspec.json.Encoder().encode
_numbers = attrgetter("attempt", "seq", "received_ns", "started_ns", "first_ns", "last_ns")
_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decoders: dict[type, Any] = {Chunk: _decode_chunk}


def encoded_limit(max_message_bytes: int) -> int:
    """Bytes that the JSON of a message of legal size may have; every receiver takes so many."""
    return WORST_ESCAPE * max_message_bytes + ENVELOPE_BYTES


def encode(message: Any, limit: int = 0) -> bytes:
    """``message`` as JSON, at most ``limit`` bytes unless that is 0.

    Raises `TransportError` for what cannot be encoded: text that is no valid Unicode, a value of another type than the
    message's. Raises `PayloadTooLarge` when what is no payload makes it longer than a receiver takes.
    """
    try:
        if type(message) is Chunk:
            _check_types(message)
        data = _encode(message)
    except (UnicodeError, TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise mapped(error, f"encoding a {type(message).__name__}") from error
    if 0 < limit < len(data):
        raise PayloadTooLarge(
            f"the message has {len(data)} bytes as JSON, its receiver takes {limit}: it has too much beside its payload"
        )
    return data


def check_size(message: TaskRequest | Chunk, max_message_bytes: int) -> None:
    """Raises `PayloadTooLarge`, or `TransportError` for texts that are something else."""
    try:
        check_payload(message, max_message_bytes)
    except (TypeError, AttributeError) as error:
        raise mapped(error, f"encoding a {type(message).__name__}") from error


def _check_types(chunk: Chunk) -> None:
    """Raises TypeError for a chunk with a value of another type, which JSON would carry and no hub read."""
    for text in (*chunk.deltas, chunk.extra, chunk.finish_reason, chunk.usage, chunk.error):
        if not isinstance(text, str):
            raise TypeError(f"one of its texts is of type {type(text).__name__}")
    for number in _numbers(chunk):
        if type(number) is not int or not 0 <= number < MAX_NUMBER:
            raise TypeError(f"one of its numbers is {number!r:.80}")


def decode(data: bytes, cls: type[T]) -> T:
    """Raises `msgspec.MsgspecError` for anything that is none."""
    decoder = _decoders.get(cls)
    if decoder is None:
        decoder = _decoders[cls] = msgspec.json.Decoder(cls).decode
    try:
        message: T = decoder(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"its text is no UTF-8: {error}") from error
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error
    return message


def fault(status: int, text: str) -> web.Response:
    return web.Response(status=status, body=encode(Fault(text)), content_type=JSON)


async def whole_body(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises `msgspec.DecodeError` when it is over `ENVELOPE_BYTES`."""
    body = bytearray()
    while data := await response.content.readany():
        body += data
        if len(body) > ENVELOPE_BYTES:
            raise msgspec.DecodeError(f"the answer has more than {ENVELOPE_BYTES} bytes")
    return bytes(body)


async def fault_text(response: aiohttp.ClientResponse) -> str:
    """What an answer other than 200 says."""
    body = await response.content.read(4096)
    try:
        return decode(body, Fault).error
    except msgspec.MsgspecError:
        return f"status {response.status} {response.reason or ''}: something else answers there"


def implausible(peer_id: str, lease_ms: int) -> str:
    """Why a peer of this id and lease cannot be linked; empty when it can."""
    if not 0 < len(peer_id) <= MAX_ID_CHARS:
        return f"its id has {len(peer_id)} characters: 1 to {MAX_ID_CHARS} are possible"
    if not 0 < lease_ms <= MAX_LEASE_MS:
        return f"its lease_ms is {lease_ms}: 1 to {MAX_LEASE_MS} are possible"
    return ""


def mismatch(protocol: str, plane: Plane, mine: Plane) -> str:
    """Why a peer that introduces itself so cannot be talked to; empty when it can."""
    if protocol != PROTOCOL:
        return f"it speaks {protocol}, this end {PROTOCOL}: use one version of anywire-http everywhere"
    if plane != mine:
        return f"this is the {mine} plane, it looks for the {plane} plane: check the addresses"
    return ""


class Lines:
    """The lines of a streamed answer as they come, several at a time when they came together."""

    def __init__(self, content: aiohttp.StreamReader, limit: int) -> None:
        self._content, self._limit = content, limit
        self._rest: list[bytes] = []
        self._size = 0

    async def some(self) -> list[bytes]:
        """At least one line; none at the end. Raises `msgspec.DecodeError` for a line over the limit or without end."""
        while True:
            data = await self._content.readany()
            if not data:
                if self._size:
                    raise msgspec.DecodeError("the answer ends in the middle of a line")
                return []
            lines = data.split(b"\n")
            last = lines.pop()
            if lines:
                if self._size:
                    lines[0] = b"".join((*self._rest, lines[0]))
                self._rest, self._size = [], 0
            if last:
                self._rest.append(last)
                self._size += len(last)
            if self._size > self._limit:
                raise msgspec.DecodeError(f"a line has more than {self._limit} bytes")
            if lines:
                return lines
