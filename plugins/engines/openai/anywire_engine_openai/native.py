"""Answers of a server in an API that it speaks itself, passed on as they are (`anywire.native_api`).

The same as `stream`, `answers` and `assembly` for chats: from the bytes of an event stream to deltas, the delta of a
whole answer, and a whole answer put together from a stream. What is read of them is what all answers are counted by;
the rest is its client's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest, TaskError
from anywire.native_api import COUNT_TOKENS, MESSAGES
from anywire_engine_openai.answers import no_token
from anywire_engine_openai.mending import mended
from anywire_engine_openai.server_errors import error_in_answer, quoted
from anywire_engine_openai.sse import EventTooLarge, SSEParser

VERSION = {"anthropic-version": "2023-06-01"}
"""The header without which Anthropic's own server answers nothing."""

_FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""A chat's reasons to end, by the API's; others are ``stop``."""
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The API's types of errors, and their statuses."""
_LEFT_OUT = ("ping", "message_stop")
_COUNTED = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_MAX_HELD = 1000
"""Events before the first that is of an answer."""

_object = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class NativeStream:
    """Reads one stream of a message; ``done`` once nothing more is wanted of it."""

    def __init__(self) -> None:
        self.done = False
        self._parser = SSEParser()
        self._usage: dict[str, Any] = {}
        self._finish = ""
        self._answered = False
        self._held: list[Delta] = []

    @property
    def complete(self) -> bool:
        """Whether the whole answer was read, whatever happens to the connection now."""
        return self.done or bool(self._finish)

    def read(self, data: bytes) -> Iterator[Delta]:
        """The deltas that ``data`` completes, one for each event. Raises `EngineFailed` or `InvalidRequest` for an
        error event, and `EngineFailed` for what is no event of a message, after the deltas before it; a fault after the
        whole answer ends the stream instead."""
        try:
            for event in self._parser.feed(data):
                delta = self._step(event.data)
                if self.done:
                    return
                if delta is None:
                    continue
                if not self._answered:
                    # It would begin an answer that may turn out to be none, which is an error from the start.
                    if len(self._held) >= _MAX_HELD:
                        raise EngineFailed("the server begins an answer and says nothing", phase="streaming")
                    self._held.append(delta)
                    continue
                yield from self._held
                self._held.clear()
                yield delta
        except (EngineFailed, InvalidRequest, EventTooLarge) as error:
            if self.complete:
                self.done = True
            elif isinstance(error, EventTooLarge):
                raise EngineFailed(f"unreadable stream: {error}", phase="streaming") from error
            else:
                raise

    def end(self) -> None:
        """To be called when the stream is over. Raises `EngineFailed` when the answer is not complete or empty."""
        if not self.complete:
            raise EngineFailed("the server ended the stream before the answer was complete", phase="streaming")
        if not self._answered:
            raise no_token()

    def _step(self, data: bytes) -> Delta | None:
        event, text = _read(data, "an event of the stream")
        kind = event.get("type")
        if kind == "error":
            raise _error_in(event, data)
        if kind in _LEFT_OUT:
            self.done |= kind == "message_stop"
            return None
        said = finish = usage = ""
        if kind == "message_start":
            self._note_usage(event.get("message"))
        elif kind == "content_block_delta":
            said = _text(event.get("delta"), "text")
            self._answered = True
        elif kind == "content_block_start":
            self._answered |= _text(event.get("content_block"), "type") != "text"
        elif kind == "message_delta":
            self._note_usage(event)
            finish, usage = _finish(event.get("delta")), _usage(self._usage)
            self._finish = finish or self._finish
            self._answered |= _is_answer(finish, self._usage)
        return Delta(said, text, finish, usage)

    def _note_usage(self, of: object) -> None:
        usage = of.get("usage") if isinstance(of, dict) else None
        if isinstance(usage, dict):
            self._usage |= {name: usage[name] for name in _COUNTED if usage.get(name) is not None}


def whole(data: bytes, endpoint: str) -> Delta:
    """The delta of a whole answer of ``endpoint``. Raises `EngineFailed`, or `InvalidRequest` when it tells a fault of
    the request."""
    answer, text = _read(data, "the answer")
    if answer.get("type") == "error":
        raise _error_in(answer, data)
    if endpoint == COUNT_TOKENS:
        if type(answer.get("input_tokens")) is not int:
            raise EngineFailed(f"the answer has no count of tokens: {quoted(data)}", phase="streaming")
        return Delta("", text, "stop")
    content, usage = answer.get("content"), answer.get("usage")
    if answer.get("type") != "message" or not isinstance(content, list):
        raise EngineFailed(f"the answer is no message: {quoted(data)}", phase="streaming")
    usage = usage if isinstance(usage, dict) else {}
    finish = _finish(answer)
    if not content and not _is_answer(finish, usage):
        raise no_token()
    return Delta("".join([_text(block, "text") for block in content]), text, finish, _usage(usage))


def streamed(data: bytes) -> list[Delta]:
    """The deltas of a stream for a whole message, from a server that answers with one where a stream was asked for.
    Raises as `whole` does."""
    answer = whole(data, MESSAGES)
    message = _object(answer.extra)
    begun = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    deltas = [Delta("", _encoded({"type": "message_start", "message": begun}))]
    for place, block in enumerate(message["content"]):
        if not isinstance(block, dict):
            raise EngineFailed(f"the answer has a block that is no object: {quoted(data)}", phase="streaming")
        head, pieces = _in_pieces(block)
        deltas.append(Delta("", _encoded({"type": "content_block_start", "index": place, "content_block": head})))
        for piece in pieces:
            event = {"type": "content_block_delta", "index": place, "delta": piece}
            deltas.append(Delta(_text(piece, "text"), _encoded(event)))
        deltas.append(Delta("", _encoded({"type": "content_block_stop", "index": place})))
    ended = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    last = {"type": "message_delta", "delta": ended, "usage": _members(message.get("usage"))}
    return [*deltas, Delta("", _encoded(last), answer.finish_reason, answer.usage)]


def _in_pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and what the events after that add."""
    if isinstance(block.get("text"), str):
        head = {name: value for name, value in block.items() if name != "citations"} | {"text": ""}
        cited = block.get("citations")
        cites = [{"type": "citations_delta", "citation": each} for each in (cited if isinstance(cited, list) else ())]
        return head, [{"type": "text_delta", "text": block["text"]}, *cites]
    if isinstance(block.get("thinking"), str):
        pieces = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        if _text(block, "signature"):
            pieces.append({"type": "signature_delta", "signature": block["signature"]})
        return block | {"thinking": "", "signature": ""}, pieces
    if isinstance(block.get("input"), dict):
        return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": _encoded(block["input"])}]
    return block, []


def _encoded(value: object) -> str:
    return _encode(value).decode()


class NativeAssembly:
    """Takes the deltas of one stream; ``whole`` is the one delta of the whole answer."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._finish = self._usage = ""
        self._attempts_used = 0
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, dict[str, list[str]]] = {}

    def add(self, delta: Delta) -> None:
        self._texts.append(delta.text)
        self._finish, self._usage = delta.finish_reason or self._finish, delta.usage or self._usage
        self._attempts_used = delta.attempts_used or self._attempts_used
        if not delta.extra:
            return
        event = _object(delta.extra)
        kind, place = event.get("type"), event.get("index")
        if kind == "message_start" and isinstance(event.get("message"), dict):
            self._message = event["message"]
        elif kind == "message_delta":
            self._message |= _members(event.get("delta"))
            self._message["usage"] = _members(self._message.get("usage")) | _members(event.get("usage"))
        elif kind == "content_block_start" and isinstance(place, int):
            self._blocks[place] = _members(event.get("content_block"))
            self._pieces[place] = {}
        elif kind == "content_block_delta" and isinstance(place, int) and place in self._blocks:
            self._add_piece(place, _members(event.get("delta")))

    def whole(self) -> Delta:
        content = [self._block(place) for place in sorted(self._blocks)]
        text = _encode({**self._message, "content": content}).decode()
        return Delta("".join(self._texts), text, self._finish, self._usage, self._attempts_used)

    def _add_piece(self, place: int, delta: Mapping[str, Any]) -> None:
        block = self._blocks[place]
        for name, value in delta.items():
            if name == "citation":
                block["citations"] = [*(block.get("citations") or []), value]
            elif name == "signature":
                block[name] = value
            elif name != "type" and isinstance(value, str):
                self._pieces[place].setdefault(name, []).append(value)

    def _block(self, place: int) -> dict[str, Any]:
        block = self._blocks[place]
        for name, pieces in self._pieces[place].items():
            text = "".join(pieces)
            if name != "partial_json":
                block[name] = str(block.get(name) or "") + text
            elif text.strip():
                try:
                    block["input"] = _object(text)
                except (msgspec.MsgspecError, UnicodeError, RecursionError):
                    block["input"] = {"INVALID_JSON": text}
        return block


def _error_in(told: Mapping[str, Any], data: bytes) -> TaskError:
    """The error of an answer whose status says of none: its type tells which it would have."""
    return error_in_answer(data, _STATUSES.get(_text(told.get("error"), "type"), 0))


def _read(data: bytes, what: str) -> tuple[dict[str, Any], str]:
    """The object, and its JSON text."""
    data = mended(data)
    try:
        return _object(data), data.decode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EngineFailed(f"{what} is no JSON object ({error}): {quoted(data)}", phase="streaming") from error


def _members(given: object) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else {}


def _text(of: object, name: str) -> str:
    value = of.get(name) if isinstance(of, dict) else None
    return value if isinstance(value, str) else ""


def _finish(of: object) -> str:
    reason = _text(of, "stop_reason")
    return _FINISH.get(reason, "stop") if reason else ""


def _is_answer(finish: str, usage: Mapping[str, Any]) -> bool:
    return finish not in ("", "stop") or _count(usage, "output_tokens") > 0


def _usage(usage: Mapping[str, Any]) -> str:
    """The same as a chat tells it; empty where nothing is told."""
    if not usage:
        return ""
    cached, made = _count(usage, "cache_read_input_tokens"), _count(usage, "output_tokens")
    given = _count(usage, "input_tokens") + cached + _count(usage, "cache_creation_input_tokens")
    told: dict[str, Any] = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    if cached:
        told["prompt_tokens_details"] = {"cached_tokens": cached}
    return _encode(told).decode()


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if type(value) is int else 0
