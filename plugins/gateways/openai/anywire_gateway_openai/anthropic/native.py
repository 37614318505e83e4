"""Messages that an engine's server has made itself, passed on (`anywire.native_api`). Their id is that of the task, and
their model has the name that clients know; all else is as the server said it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import StreamCorrupted
from anywire.messages import Chunk
from anywire.native_api import MESSAGES, NEEDS
from anywire_gateway_openai.answers import LARGE_CHARS, MESSAGE_PREFIX, checked_json
from anywire_gateway_openai.first_choice import MAX_PIECE_PARTS
from anywire_gateway_openai.sse import sse_event, stages_comment

_TYPE = re.compile(r"[a-z_]{1,64}")
_STOP = b'{"type":"message_stop"}'

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


class _Event(Struct):
    type: str = ""
    message: Raw = Raw()
    choices: Raw = Raw()


class _Count(Struct):
    input_tokens: int


_event = msgspec.json.Decoder(_Event).decode
_count = msgspec.json.Decoder(_Count).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


def is_spoken(context: Context, caller: Caller, model: str) -> bool:
    """Whether the server of every agent that could get a message for ``model`` speaks this API itself: then no agent is
    left out for it."""
    offers = [offer for _, offer in context.offers(caller).get(model, ()) if offer.takes_tasks]
    return bool(offers) and not any(offer.lacks(NEEDS[MESSAGES]) for offer in offers)


def is_native(chunk: Chunk) -> bool:
    """Whether a chunk holds what a server said in this API. A service may have answered in a chat's form instead."""
    if not chunk.extra:
        return False
    try:
        event = _event(chunk.extra)
    except _UNREADABLE:
        return False
    return bool(event.type) and not bytes(event.choices)


def native_message(chunk: Chunk, task_id: str, model: str) -> bytes:
    """The JSON of a whole message. Raises `StreamCorrupted`."""
    return _encode(_as_ours(checked_json(chunk.extra, "{", "a message"), task_id, model))


def native_count(chunk: Chunk) -> int:
    """The tokens of a prompt. Raises `StreamCorrupted`."""
    try:
        return _count(chunk.extra).input_tokens
    except _UNREADABLE as error:
        raise StreamCorrupted(f"the agent sent no count of tokens: {error}", phase="streaming") from error


class NativeEvents:
    """Passes on the events of one streamed message; ``ended`` once the last one is made."""

    def __init__(self, task_id: str) -> None:
        self.ended = False
        self._task_id = task_id

    def events(self, chunks: Sequence[Chunk], model: str, spans_ms: Mapping[str, float] | None = None) -> bytes:
        """As `anthropic.events.MessageEvents.events`."""
        out = []
        for chunk in chunks:
            if self.ended:
                raise StreamCorrupted("there is something after the final chunk", phase="streaming")
            if chunk.extra:
                out.append(self._passed_on(chunk.extra, model))
            if chunk.final:
                self.ended = True
                out.append(stages_comment(spans_ms) if spans_ms is not None else b"")
                out.append(sse_event(_STOP, "message_stop"))
        return b"".join(out)

    def _passed_on(self, extra: str, model: str) -> bytes:
        if len(extra) > LARGE_CHARS and max(extra.count(mark) for mark in "[{,") > MAX_PIECE_PARTS:
            raise StreamCorrupted(
                f"the agent sent an event with more than {MAX_PIECE_PARTS} lists, objects or commas", phase="streaming"
            )
        try:
            event = _event(extra)
            if event.type == "message_start":
                message = _as_ours(event.message, self._task_id, model)
                return sse_event(_encode({**_members(extra), "message": message}), event.type)
        except _UNREADABLE as error:
            raise StreamCorrupted(f"the agent sent an event that cannot be read: {error}", phase="streaming") from error
        if not _TYPE.fullmatch(event.type):
            raise StreamCorrupted("the agent sent an event without a type", phase="streaming")
        return sse_event(extra.encode(), event.type)


def _as_ours(message: Raw, task_id: str, model: str) -> dict[str, Raw]:
    try:
        told = _members(message)
    except _UNREADABLE as error:
        raise StreamCorrupted(f"the agent sent a message that cannot be read: {error}", phase="streaming") from error
    return told | {"id": Raw(_encode(MESSAGE_PREFIX + task_id)), "model": Raw(_encode(model))}
