"""What servers answer to tasks whose answer is one JSON object, in the form that `anywire.engine` names."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.messages import Kind
from anywire_engine_openai.server_errors import error_in_answer, quoted

MAX_TYPE_CHARS = 128
"""Characters of a media type."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def whole_answer(kind: Kind, body: bytes, content_type: str) -> Delta:
    """The delta of an answer. Raises `EngineFailed` for what is none, and `InvalidRequest` where it tells a fault of
    the request."""
    media_type = content_type.partition(";")[0].strip().lower()
    if kind == "speech" and media_type != "application/json":
        if not body:
            raise EngineFailed("the server answered without any sound", phase="streaming")
        return _delta({"audio": base64.b64encode(body).decode(), "content_type": _printable(content_type)})
    if kind == "transcription" and media_type != "application/json":
        text = body.decode(errors="replace")
        return _delta({"content": text, "content_type": _printable(content_type) or "text/plain; charset=utf-8"})
    answer = _read(body)
    if isinstance(answer, dict) and answer.get("error"):
        raise error_in_answer(body)
    made = _MADE[kind](answer) if kind in _MADE else answer
    if not isinstance(made, dict):
        raise EngineFailed(f"the answer is none to a task of the kind {kind}: {quoted(body)}", phase="streaming")
    return _delta(made, answer.get("usage") if isinstance(answer, dict) else None)


def templated_prompt(body: bytes) -> str:
    """The prompt that llama.cpp's template makes of a chat. Raises `EngineFailed`."""
    answer = _read(body)
    prompt = answer.get("prompt") if isinstance(answer, dict) else None
    if not isinstance(prompt, str):
        raise EngineFailed(f"the server made no prompt of the chat: {quoted(body)}", phase="streaming")
    return prompt


def _read(body: bytes) -> Any:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineFailed(f"the answer is no JSON ({error}): {quoted(body)}", phase="streaming") from error


def _delta(answer: Mapping[str, Any], usage: object = None) -> Delta:
    told = _encode(usage).decode() if isinstance(usage, dict) else ""
    return Delta("", _encode({name: each for name, each in answer.items() if name != "usage"}).decode(), "stop", told)


def _reranked(answer: Any) -> Any:
    """Jina's, Cohere's and vLLM's servers answer ``results``, Voyage's ``data``, and others a list of scores."""
    results = answer if isinstance(answer, list) else None
    if isinstance(answer, dict):
        results = answer.get("results", answer.get("data"))
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        return None
    scored = []
    for each in cast("list[dict[str, Any]]", results):
        score = each.get("relevance_score", each.get("score"))
        if type(each.get("index")) is not int or not isinstance(score, int | float):
            return None
        others = {name: value for name, value in each.items() if name != "score"}
        scored.append({**others, "relevance_score": score})
    beside = answer if isinstance(answer, dict) else {}
    return {**{name: each for name, each in beside.items() if name != "data"}, "results": scored}


def _tokens(answer: Any) -> Any:
    """llama.cpp's server answers objects with pieces where these are asked for, vLLM's ``token_strs`` beside."""
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(tokens, list):
        return None
    made = {name: answer[name] for name in ("max_model_len", "token_strs") if answer.get(name) is not None}
    if tokens and all(isinstance(each, dict) for each in tokens):
        made["token_strs"] = [_piece(each.get("piece")) for each in tokens]
        tokens = [each.get("id") for each in tokens]
    if not all(type(each) is int for each in tokens):
        return None
    return {**made, "tokens": tokens, "count": len(tokens)}


def _piece(piece: object) -> str:
    """A piece of text; llama.cpp tells the bytes of one that is no whole character."""
    if isinstance(piece, list):
        return bytes([each for each in piece if type(each) is int and 0 <= each < 256]).decode(errors="replace")
    return str(piece)


def _text(answer: Any) -> Any:
    if not isinstance(answer, dict):
        return None
    text = answer.get("prompt", answer.get("content"))
    return {"prompt": text} if isinstance(text, str) else None


_MADE = {"rerank": _reranked, "tokenize": _tokens, "detokenize": _text}


def _printable(content_type: str) -> str:
    """A media type that may stand in a header."""
    fits = len(content_type) <= MAX_TYPE_CHARS and content_type.isascii() and content_type.isprintable()
    return content_type if fits else "application/octet-stream"
