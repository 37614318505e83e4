"""Answers as a client gives them: in OpenAI's form, whole or in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from anywire.errors import EngineFailed, StreamCorrupted
from anywire.extra import split
from anywire.messages import WHOLE_KINDS, Chunk, Kind

_FORMS: dict[Kind, tuple[str, str]] = {
    "chat": ("chatcmpl-", "chat.completion"),
    "completion": ("cmpl-", "text_completion"),
}


class Piece(msgspec.Struct, frozen=True):
    """A piece of a streamed answer. ``choices`` is what plain text of choice 0 cannot hold (tool calls, further
    choices …), in OpenAI's form; ``members`` is what the engine said beside the choices (``system_fingerprint`` …).
    ``finish_reason`` and ``usage`` come with the last piece."""

    text: str = ""
    choices: list[dict[str, Any]] = []
    members: dict[str, Any] = {}
    finish_reason: str = ""
    usage: dict[str, Any] = {}


def whole_answer(kind: Kind, task_id: str, model: str, chunk: Chunk) -> dict[str, Any]:
    """A whole answer in OpenAI's form."""
    usage = _decoded(chunk.usage)
    if kind == "embedding":
        if not chunk.extra:
            raise EngineFailed("the engine gave no embedding")
        return {"object": "list", "data": _decoded(chunk.extra), "model": model, **({"usage": usage} if usage else {})}
    if kind in WHOLE_KINDS:
        answer = _decoded(chunk.extra)
        if not isinstance(answer, dict):
            raise EngineFailed(f"the engine gave no answer to a task of the kind {kind}")
        return {**answer, "model": model, **({"usage": usage} if usage else {})}
    prefix, form = _FORMS[kind]
    choices, members = _decoded(chunk.extra, split) or ([], {})
    if not chunk.extra:
        text = "".join(chunk.deltas)
        said = {"message": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
        choices = [{"index": 0, **said, "logprobs": None, "finish_reason": chunk.finish_reason or "stop"}]
    head: dict[str, Any] = {
        "id": prefix + task_id,
        "object": form,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
    }
    return members | head | ({"usage": usage} if usage else {})


def pieces_of(chunk: Chunk) -> list[Piece]:
    if not chunk.final and not chunk.extra:
        return [Piece(text) for text in chunk.deltas]
    *texts, last = chunk.deltas or ("",)
    choices, members = _decoded(chunk.extra, split) or ([], {})
    ending = Piece(last, choices, members, chunk.finish_reason, _decoded(chunk.usage) or {})
    return [*map(Piece, texts), ending]


def _decoded(text: str, decode: Callable[[str], Any] = msgspec.json.decode) -> Any:
    try:
        return decode(text) if text else None
    except msgspec.DecodeError as error:
        raise StreamCorrupted(f"what came as JSON cannot be read: {error}", phase="streaming") from error
