"""Whole answers in OpenAI's form."""

from __future__ import annotations

import time

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from anywire.errors import EngineFailed, StreamCorrupted
from anywire.messages import Chunk, Kind

ID_PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "completion": "cmpl-", "embedding": "embd-"}
"""An answer's id is this and the task's."""
RESPONSE_PREFIX = "resp_"
"""The same of a response."""
MESSAGE_PREFIX = "msg_"
"""The same of a message in Anthropic's API."""


def task_id_of(name: str) -> str:
    """The id of a task that ``name`` gives: alone, or as an answer's id carries it (``chatcmpl-…``)."""
    for prefix in (*ID_PREFIX.values(), RESPONSE_PREFIX, MESSAGE_PREFIX):
        name = name.removeprefix(prefix)
    return name


class Message(Struct, kw_only=True):
    role: str = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Struct, kw_only=True):
    index: int = 0
    message: Message
    logprobs: None = None
    finish_reason: str


class TextChoice(Struct, kw_only=True):
    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: str


class Answer(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice] | list[TextChoice] | Raw
    usage: Raw | UnsetType = UNSET


class Embeddings(Struct, kw_only=True):
    object: str = "list"
    data: Raw
    model: str
    usage: Raw | UnsetType = UNSET


_HEAD = frozenset(Answer.__struct_fields__)
_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder(Raw)
_object = msgspec.json.Decoder(dict[str, Raw])

LARGE_CHARS = 256 * 1024
"""Characters from which it is counted what decoding would cost, and most that an engine says beside its choices."""
MAX_PARTS = 1_000_000
"""Lists and objects of a whole answer. Each log probability is two, and 32 MiB hold no more of them."""


class _WithChoices(Struct):
    choices: Raw


_with_choices = msgspec.json.Decoder(_WithChoices)
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


def answer(kind: Kind, task_id: str, model: str, chunk: Chunk, created: int = 0) -> bytes:
    """The JSON of a unary answer, ``created`` now or at that Unix time. Raises `StreamCorrupted` when what the agent
    sent as JSON is none, `EngineFailed` when it holds no embedding."""
    usage = checked_json(chunk.usage, "{", "usage") if chunk.usage else UNSET
    if kind == "embedding":
        if not chunk.extra:
            raise EngineFailed("the engine gave no embedding")
        return _encode(Embeddings(data=checked_json(chunk.extra, "[", "embedding"), model=model, usage=usage))
    others: dict[str, Raw] = {}
    if chunk.extra:
        choices: list[ChatChoice] | list[TextChoice] | Raw
        choices, others = split(chunk.extra)
    else:
        text = encodable(chunk.deltas[0]) if chunk.deltas else ""
        reason = chunk.finish_reason or "stop"
        if kind == "chat":
            choices = [ChatChoice(message=Message(content=text), finish_reason=reason)]
        else:
            choices = [TextChoice(text=text, finish_reason=reason)]
    form = "chat.completion" if kind == "chat" else "text_completion"
    whole = Answer(ID_PREFIX[kind] + task_id, form, created or int(time.time()), model, choices, usage)
    encoded = _encode(whole)
    return encoded[:-1] + members_after(others) + b"}" if others else encoded


def members_after(others: dict[str, Raw]) -> bytes:
    """``others`` as they go on in a JSON object that has members already; those every answer has are left out."""
    others = {name: value for name, value in others.items() if name not in _HEAD}
    return b"," + _encode(others)[1:-1] if others else b""


def split(extra: str) -> tuple[Raw, dict[str, Raw]]:
    """The choices an agent sent, and what else its engine said beside them: ``extra`` is their list, or an object with
    a member ``choices``. Raises `StreamCorrupted`."""
    if extra[:1] != "{":
        return checked_json(extra, "[", "choices"), {}
    try:
        _check_parts(extra)
        choices = _with_choices.decode(extra).choices
        if bytes(memoryview(choices)[:1]) != b"[":
            raise msgspec.DecodeError("they are no list")
        if len(extra) - len(memoryview(choices)) > LARGE_CHARS:
            raise msgspec.DecodeError(f"more than {LARGE_CHARS} characters are beside them")
        others = _object.decode(extra)
        del others["choices"]
    except _UNREADABLE as error:
        raise StreamCorrupted(f"the agent sent choices that cannot be read: {error}", phase="streaming") from error
    return choices, others


def checked_json(text: str, start: str, what: str) -> Raw:
    """``text`` for insertion, once it is known to be JSON that begins with ``start``: clients must never get a broken
    document because an agent sent one. Nothing is made of it: that of a large answer would take long."""
    try:
        _check_parts(text)
        _any.decode(text)
        if not text.lstrip(" \t\r\n").startswith(start):
            raise msgspec.DecodeError(f"it does not begin with {start}")
    except _UNREADABLE as error:
        raise StreamCorrupted(f"the agent sent {what} that cannot be read: {error}", phase="streaming") from error
    return Raw(text)


def _check_parts(text: str) -> None:
    if len(text) > LARGE_CHARS and text.count("[") + text.count("{") > MAX_PARTS:
        raise msgspec.DecodeError(f"they have more than {MAX_PARTS} lists and objects")


def encodable(text: str) -> str:
    """``text``, its unpaired surrogates (half an emoji, say) replaced: UTF-8 cannot carry them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
