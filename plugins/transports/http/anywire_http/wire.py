"""The wire format: JSON objects with the fields' names, one a line where several follow each other.

    POST {hub}/agents/register   Registration → Welcome                an agent makes itself known
    GET  {agent}/agent           → AgentHello                          who is there
    POST {agent}/link            HubHello → LinkLine, LinkLine …       lives as long as the link; its end is the loss
    POST {agent}/tasks           TaskRequest → Chunk, Chunk …          one per attempt, with `ProgressLine` in between
    POST {agent}/commands        Command → CommandResult …             one per command
    POST {agent}/control         ControlLine, ControlLine … → 200      cancel, credit

Every request carries ``Authorization: Bearer`` when a token is set; tasks, commands and control name their link in
`LINK_HEADER`, and tasks their place in the order sent in `ORDER_HEADER`, since they travel on several connections.

A large task has its ``body`` behind the JSON, in UTF-8 as it is; `TEXT_HEADER` names its length. As a string of JSON it
would have to be escaped and read letter by letter, and the event loop does not run meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from operator import attrgetter
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp import web

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
    Progress,
    TaskRequest,
)
from anywire.offers import MAX_OFFERS_BYTES
from anywire.printable import printable
from anywire.transport import Plane
from anywire.transport_tools import check_payload, check_protocol
from anywire_http.faults import mapped

PROTOCOL = "anywire-http/1"
"""How requests and lines look. What the messages are, `anywire.protocol` says."""

LINK_HEADER = "Anywire-Link"
ORDER_HEADER = "Anywire-Order"
TEXT_HEADER = "Anywire-Text"
LENGTH_DIGITS = 18
"""Most digits that `TEXT_HEADER` may have."""
JSON, JSON_LINES = "application/json", "application/x-ndjson"

ENVELOPE_BYTES = 1024 * 1024 + 4 * MAX_OFFERS_BYTES
"""Bytes of everything in a message that is no payload: ids, offers, gauges, several control messages."""

WORST_ESCAPE = 9
"""Bytes that JSON makes of one byte of payload at worst: a control character is six (``\\u0001``), and where it is a
delta of its own, quotes and a comma are added."""

MAX_NUMBER = 2**63
"""What every number in a chunk is below."""

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


class ProgressLine(msgspec.Struct, frozen=True):
    """A line of a task's answer that is no chunk."""

    progress: Progress


class Fault(msgspec.Struct, frozen=True):
    """The body of every answer that is not 200."""

    error: str


class _OtherLine(msgspec.Struct, frozen=True):
    """Tells a line of an answer that a neighbouring version adds from one of ours that cannot be read."""

    task_id: msgspec.Raw | None = None
    id: msgspec.Raw | None = None
    progress: msgspec.Raw | None = None

    @property
    def is_ours(self) -> bool:
        return not (self.task_id is self.id is self.progress is None)


class _Speaker(msgspec.Struct, frozen=True):
    agent_id: str = ""
    hub_id: str = ""
    protocol: str = ""


class _Introduction(msgspec.Struct, frozen=True):
    """What every hello has had so far, whatever its version."""

    info: _Speaker


_ANSWERS: tuple[type[Any], ...] = (ProgressLine, CommandResult, Chunk)
_encode = msgspec.json.Encoder().encode
_numbers = attrgetter("attempt", "seq", "received_ns", "started_ns", "first_ns", "last_ns", "attempts_used")
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
        elif isinstance(message, ControlLine | ProgressLine | Command | CommandResult):
            msgspec.convert(msgspec.to_builtins(message), type(message))
        data = _encode(message)
    except (UnicodeError, TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise mapped(error, f"encoding a {type(message).__name__}") from error
    if 0 < limit < len(data):
        raise PayloadTooLarge(
            f"the message has {len(data)} bytes as JSON, its receiver takes {limit}: it has too much beside its payload"
        )
    return data


def encode_task(task: TaskRequest, limit: int) -> tuple[bytes, ...]:
    """``task`` as JSON, and a large one's body behind it. Raises as `encode` does."""
    if len(task.body) <= LARGE_BYTES:
        return (encode(task, limit),)
    try:
        text = task.body.encode()
    except UnicodeError as error:
        raise mapped(error, "encoding a TaskRequest") from error
    return encode(msgspec.structs.replace(task, body=""), limit), text


async def decode_task(data: bytes, text_bytes: int) -> TaskRequest:
    """A task, the last ``text_bytes`` bytes of its ``data`` being its body. Raises `msgspec.MsgspecError`."""
    if not text_bytes:
        return decode(data, TaskRequest)
    head = len(data) - text_bytes
    if not 0 < head <= ENVELOPE_BYTES:
        raise msgspec.DecodeError(f"of its {len(data)} bytes {text_bytes} cannot be the body of a task")
    task = decode(data[:head], TaskRequest)
    await asyncio.sleep(0)
    try:
        text = str(memoryview(data)[head:], "utf-8")
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"its body is no UTF-8: {error.reason}") from error
    await asyncio.sleep(0)
    return msgspec.structs.replace(task, body=text)


def check_size(message: TaskRequest | Command | FromAgent, max_message_bytes: int) -> None:
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


def decode_hello(data: bytes, cls: type[T], own: HubInfo | AgentInfo) -> T:
    """Raises `LinkRefused` for a hello that cannot be read because it is of another version than ``own``, and
    `msgspec.MsgspecError` for any other that cannot be read."""
    try:
        return decode(data, cls)
    except msgspec.MsgspecError:
        _check_unreadable(data, own)
        raise


def _check_unreadable(data: bytes, own: HubInfo | AgentInfo) -> None:
    try:
        peer = decode(data, _Introduction).info
    except msgspec.MsgspecError:
        return
    if peer.agent_id:
        check_protocol(AgentInfo(peer.agent_id, 0, protocol=peer.protocol), own)
    elif peer.hub_id:
        check_protocol(HubInfo(peer.hub_id, 0, protocol=peer.protocol), own)


def decode_answer(line: bytes, expected: type[Chunk] | type[CommandResult]) -> FromAgent | None:
    """A line of an answer: as a rule what is ``expected``, but it may be anything that an agent sends; None for what
    only a neighbouring version knows. Raises `msgspec.MsgspecError` for what cannot be read."""
    if len(line) > LARGE_BYTES and line.count(b'"') - line.count(b'\\"') > 3 * MAX_DELTAS:
        # Decoding them would take seconds. Quotes within a text are escaped.
        raise msgspec.DecodeError(f"it has more texts than {MAX_DELTAS} deltas")
    try:
        return decode(line, expected)
    except msgspec.ValidationError:
        for other in _ANSWERS:
            with suppress(msgspec.ValidationError):
                message = decode(line, other)
                return message.progress if isinstance(message, ProgressLine) else message
        if decode(line, _OtherLine).is_ours:
            raise
        return None


def key_of(message: TaskRequest | Command | Chunk | CommandResult) -> tuple[str, int]:
    """Task and attempt that it belongs to; for a command its id and 0."""
    if isinstance(message, Command | CommandResult):
        return message.id, 0
    return message.task_id, message.attempt


def is_last(message: FromAgent, key: tuple[str, int]) -> bool:
    """Whether it ends the answer to the request with this `key_of`."""
    if isinstance(message, Progress) or not message.final:
        return False
    return isinstance(message, CommandResult) == (key[1] == 0) and key_of(message) == key


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
        return printable(decode(body, Fault).error)
    except msgspec.MsgspecError:
        return f"status {response.status} {printable(response.reason or '', 80)}: something else answers there"


def other_framing(protocol: str) -> str:
    """Why a peer whose hello names this ``protocol`` cannot be understood; empty when it can."""
    if protocol == PROTOCOL:
        return ""
    return f"it speaks {printable(protocol, 40)}, this end {PROTOCOL}: use one version of anywire-http everywhere"


def other_plane(plane: Plane, mine: Plane) -> str:
    """Why a peer that looks for ``plane`` is wrong here; empty when it is not."""
    if plane == mine:
        return ""
    return f"this is the {mine} plane, it looks for the {plane} plane: check the addresses"


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
