"""Answers of these tasks in the form of their clients: pure functions of what an agent sent, which may be anything."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from anywire.errors import EngineFailed, StreamCorrupted
from anywire.messages import Chunk
from anywire_gateway_openai.answers import checked_json
from anywire_gateway_openai.whole.request import Object, RerankRequest, TokenizeRequest

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(?:;\s*[\w.+-]+=[\w.+-]+)*")
_SOUND = ("audio/", "application/octet-stream", "text/event-stream")
_WRITTEN = ("text/plain", "text/vtt", "text/srt", "application/x-subrip")
"""What media types of answers begin with; pages are not among them."""
MAX_TYPE_CHARS = 128
_HEAD = ("id", "object", "model", "results", "usage")

_object = msgspec.json.Decoder(Object).decode


class Bytes(NamedTuple):
    """An answer that is no JSON."""

    data: bytes
    content_type: str


def read_object(chunk: Chunk, kind: str) -> Object:
    """What an agent sent. Raises `EngineFailed` where it sent nothing, `StreamCorrupted` for what is no JSON object."""
    if not chunk.extra:
        raise EngineFailed(f"the engine gave no answer to a task of the kind {kind}")
    try:
        return _object(bytes(checked_json(chunk.extra, "{", f"the answer of a {kind} task")))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _corrupted(kind, str(error)) from error


def usage_of(chunk: Chunk) -> Raw | None:
    return checked_json(chunk.usage, "{", "usage") if chunk.usage else None


def reranked(task_id: str, model: str, answer: Mapping[str, Any], usage: Raw | None, asked: RerankRequest) -> Object:
    """Jina's, Cohere's and vLLM's form, the best document first, as many as were asked for. Raises
    `StreamCorrupted`."""
    results = answer.get("results")
    if not isinstance(results, list):
        raise _corrupted("rerank", "it has no results")
    scored: list[Object] = []
    for each in results:
        at, score = (each.get("index"), each.get("relevance_score")) if isinstance(each, dict) else (None, None)
        if type(at) is not int or not 0 <= at < len(asked.documents):
            raise _corrupted("rerank", "a result has no index of a document")
        if not isinstance(score, int | float) or isinstance(score, bool):
            raise _corrupted("rerank", "a result has no score")
        told = {name: value for name, value in each.items() if name != "document"}
        if asked.return_documents:
            document = msgspec.json.decode(asked.documents[at])
            told["document"] = {"text": document} if isinstance(document, str) else document
        scored.append(told)
    scored.sort(key=lambda each: -each["relevance_score"])
    others = {name: value for name, value in answer.items() if name not in _HEAD}
    head: Object = {"id": f"rerank-{task_id}", "object": "list", "model": model}
    top = len(scored) if asked.top_n is None else int(asked.top_n)
    return {**others, **head, "results": scored[:top], **({"usage": usage} if usage is not None else {})}


def tokenized(answer: Mapping[str, Any], asked: TokenizeRequest, context: int) -> Object:
    """vLLM's form, or llama.cpp's for a request in that. ``context`` is the model's where the engine tells none, 0 for
    unknown. Raises `StreamCorrupted`."""
    tokens, texts = answer.get("tokens"), answer.get("token_strs")
    if not isinstance(tokens, list) or not all(type(each) is int for each in tokens):
        raise _corrupted("tokenize", "it has no tokens")
    wanted = bool(asked.return_token_strs or asked.with_pieces)
    if not isinstance(texts, list) or len(texts) != len(tokens):
        texts = None
    if asked.is_llama_cpps:
        if wanted and texts is not None:
            return {"tokens": [{"id": each, "piece": text} for each, text in zip(tokens, texts, strict=True)]}
        return {"tokens": tokens}
    longest = answer.get("max_model_len")
    return {
        "count": len(tokens),
        "max_model_len": longest if type(longest) is int else context or None,
        "tokens": tokens,
        "token_strs": texts if wanted else None,
    }


def detokenized(answer: Mapping[str, Any]) -> Object:
    """The text under vLLM's name and under llama.cpp's. Raises `StreamCorrupted`."""
    text = answer.get("prompt")
    if not isinstance(text, str):
        raise _corrupted("detokenize", "it has no text")
    return {"prompt": text, "content": text}


def spoken(answer: Mapping[str, Any]) -> Bytes:
    """The sound. Raises `StreamCorrupted`."""
    try:
        data = base64.b64decode(str(answer.get("audio") or ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _corrupted("speech", str(error)) from error
    if not data:
        raise _corrupted("speech", "it has no sound")
    return Bytes(data, _type(answer, _SOUND, "application/octet-stream"))


def transcribed(answer: Mapping[str, Any], usage: Raw | None) -> Object | Bytes:
    """JSON, or a text in another form. Raises `StreamCorrupted`."""
    text = answer.get("content")
    if isinstance(text, str) and "text" not in answer:
        return Bytes(text.encode(errors="replace"), _type(answer, _WRITTEN, "text/plain; charset=utf-8"))
    if not isinstance(answer.get("text"), str):
        raise _corrupted("transcription", "it has no text")
    return {**answer, **({"usage": usage} if usage is not None else {})}


def drawn(answer: Mapping[str, Any], usage: Raw | None) -> Object:
    """OpenAI's form. Raises `StreamCorrupted`."""
    if not isinstance(answer.get("data"), list):
        raise _corrupted("image", "it has no data")
    return {**answer, **({"usage": usage} if usage is not None else {})}


def _type(answer: Mapping[str, Any], begins: Sequence[str], otherwise: str) -> str:
    """The media type that an agent says, if it is one of those that ``begins`` names."""
    said = answer.get("content_type")
    if not isinstance(said, str) or len(said) > MAX_TYPE_CHARS or not said.isascii():
        return otherwise
    return said if _MEDIA_TYPE.fullmatch(said) and said.lower().startswith(tuple(begins)) else otherwise


def _corrupted(kind: str, why: str) -> StreamCorrupted:
    return StreamCorrupted(f"the agent sent an answer to a {kind} task that cannot be used: {why}", phase="streaming")
