"""Whole answers in OpenAI's form."""

from __future__ import annotations

import time

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from anywire.errors import EngineFailed, StreamCorrupted
from anywire.messages import Chunk, Kind

ID_PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "completion": "cmpl-", "embedding": "embd-"}
"""An answer's id is this and the task's."""


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


_encode = msgspec.json.Encoder().encode
_list = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])


def answer(kind: Kind, task_id: str, model: str, chunk: Chunk) -> bytes:
    """The JSON of a unary answer. Raises `StreamCorrupted` when what the agent sent as JSON is none, `EngineFailed`
    when it holds no embedding."""
    usage = checked_json(chunk.usage, _object, "usage") if chunk.usage else UNSET
    if kind == "embedding":
        if not chunk.extra:
            raise EngineFailed("the engine gave no embedding")
        return _encode(Embeddings(data=checked_json(chunk.extra, _list, "embedding"), model=model, usage=usage))
    if chunk.extra:
        choices: list[ChatChoice] | list[TextChoice] | Raw = checked_json(chunk.extra, _list, "choices")
    else:
        text = encodable(chunk.deltas[0]) if chunk.deltas else ""
        reason = chunk.finish_reason or "stop"
        if kind == "chat":
            choices = [ChatChoice(message=Message(content=text), finish_reason=reason)]
        else:
            choices = [TextChoice(text=text, finish_reason=reason)]
    form = "chat.completion" if kind == "chat" else "text_completion"
    return _encode(Answer(ID_PREFIX[kind] + task_id, form, int(time.time()), model, choices, usage))


def checked_json(text: str, decoder: msgspec.json.Decoder[list[Raw]] | msgspec.json.Decoder[dict[str, Raw]],
                 what: str) -> Raw:  # fmt: skip
    """``text`` for insertion, once it is known to be JSON of the right shape: clients must never get a broken
    document because an agent sent one."""
    try:
        decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise StreamCorrupted(f"the agent sent {what} that cannot be read: {error}", phase="streaming") from error
    return Raw(text)


def encodable(text: str) -> str:
    """``text``, its unpaired surrogates (half an emoji, say) replaced: UTF-8 cannot carry them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
