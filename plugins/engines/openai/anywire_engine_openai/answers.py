"""What an OpenAI-compatible server says, turned into deltas and errors.

The common case, a step with plain text of choice 0, is decoded once into small structs that reject unknown
fields. Whatever does not fit goes the long way: in a step null and empty members count as absent, and if something
beyond plain text remains, the server's own ``choices`` JSON is passed on verbatim. With ``keep`` members of the answer
beside its choices (``system_fingerprint``, ``service_tier`` and whatever a server invents) are passed on too, of a
stream those of events that say more than text: servers repeat them on each, and the last suffices.
"""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest, TaskError
from anywire.extra import split

MAX_QUOTED = 500  # characters of an unreadable answer that an error message quotes

_NOT_THE_CLIENTS_FAULT = frozenset({401, 403, 407, 408, 425, 429})
"""4xx that speak of the agent's key, the server's load or the connection, not of the request."""


_ABSENT = msgspec.Raw()


class _PlainDelta(msgspec.Struct, forbid_unknown_fields=True):
    content: str | None = None
    role: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_content: None = None
    reasoning: None = None


class _PlainChoice(msgspec.Struct, forbid_unknown_fields=True):
    index: int
    delta: _PlainDelta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: None = None
    stop_reason: None = None
    token_ids: None = None


class _PlainEvent(msgspec.Struct):
    choices: list[_PlainChoice]
    usage: msgspec.Raw = _ABSENT
    error: None = None


class _Answer(msgspec.Struct):
    choices: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


_plain_event = msgspec.json.Decoder(_PlainEvent)
_answer = msgspec.json.Decoder(_Answer)
_choices = msgspec.json.Decoder(list[dict[str, Any]])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

_OWN = {"id", "object", "created", "model", "choices", "data", "usage", "error", "obfuscation"}
"""Members of an answer that are not its server's to say, or that are passed on by themselves; ``obfuscation`` pads a
single event on a single connection."""
_PLAIN_MEMBERS = {"index", "finish_reason", "text", "delta", "message"}
_PLAIN_MESSAGE_MEMBERS = {"role", "content"}


def step(data: bytes, *, keep: bool = False) -> Delta | None:
    """The delta of one event of a stream; None when it says nothing (a role, a keep-alive).

    Raises `EngineFailed` for an error event and for what is no OpenAI chunk."""
    try:
        event = _plain_event.decode(data)
    except msgspec.DecodeError:
        return _any_step(data, keep)
    choices = event.choices
    if len(choices) != 1 or choices[0].index != 0 or (keep and choices[0].finish_reason):
        return _any_step(data, keep)
    choice = choices[0]
    text = (choice.delta.content if choice.delta is not None else choice.text) or ""
    finish_reason = choice.finish_reason or ""
    usage = _text(event.usage)
    return Delta(text, "", finish_reason, usage) if text or finish_reason or usage else None


def _any_step(data: bytes, keep: bool) -> Delta | None:
    delta = _delta(_decode(data, "an event of the stream"), "delta", _others(data) if keep else None)
    return delta if delta.text or delta.extra or delta.finish_reason or delta.usage else None


def whole(data: bytes, *, keep: bool = False) -> Delta:
    """The delta of a unary chat or completion answer. Raises `EngineFailed`."""
    return _delta(_decode(data, "the answer"), "message", _others(data) if keep else None)


def embeddings(body: bytes) -> Delta:
    """The delta of an embeddings answer. Raises `EngineFailed`, also when there is no embedding in it."""
    answer = _decode(body, "the answer")
    data = _text(answer.data)
    if data in ("", "[]"):
        raise EngineFailed("the server answered without an embedding", phase="streaming")
    return Delta(extra=data, usage=_text(answer.usage))


def generated(delta: Delta) -> bool:
    """Whether a delta proves that the model generated something, if only tokens that are not shown."""
    if delta.text:
        return True
    if delta.extra:
        choices, _ = split(delta.extra)
        if not (_plain(choices, "delta") and _plain(choices, "message")):
            return True
    if not delta.usage:
        return False
    usage = msgspec.json.decode(delta.usage)
    return isinstance(usage, dict) and bool(usage.get("completion_tokens"))


def no_token() -> EngineFailed:
    return EngineFailed("the server answered without a single token", phase="streaming", status=200)


def refusal(status: int, body: bytes, server: str, retry_after: str = "") -> TaskError:
    """The error that stands for an answer with an HTTP status other than 200. ``retry_after`` is the header of that
    name."""
    said = _read_error(body)
    wait = _seconds(retry_after) if retry_after else 0.0
    if status in _NOT_THE_CLIENTS_FAULT or not 400 <= status < 500:
        hint = " (is the engine's api_key right?)" if status in (401, 403) else ""
        return EngineFailed(
            f"{server} answered with status {status}: {said.message}{hint}",
            phase="maybe_sent",
            status=status,
            detail_code=said.code,
            retry_after=wait,
            members=said.members,
        )
    return InvalidRequest(
        said.message,
        phase="maybe_sent",
        param=said.param,
        status=status,
        detail_code=said.code,
        retry_after=wait,
        origin="engine",
        members=said.members,
    )


def _seconds(retry_after: str) -> float:
    """From now on, of a ``Retry-After`` that is a number or a date; 0 for one that is neither or has passed."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def _decode(data: bytes, what: str) -> _Answer:
    try:
        answer = _answer.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineFailed(f"{what} is no OpenAI JSON ({error}): {_quote(data)}", phase="streaming") from error
    if _text(answer.error):
        said = _read_error(data)
        raise EngineFailed(
            f"the server reported an error: {said.message}",
            phase="streaming",
            detail_code=said.code,
            members=said.members,
        )
    return answer


def _others(data: bytes) -> dict[str, msgspec.Raw]:
    return {
        name: value for name, value in _members.decode(data).items() if name not in _OWN and bytes(value) != b"null"
    }


def _delta(answer: _Answer, key: str, others: dict[str, msgspec.Raw] | None) -> Delta:
    raw = _text(answer.choices)
    try:
        choices = _choices.decode(raw) if raw else []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineFailed(f"the choices are no OpenAI JSON: {error}", phase="streaming") from error
    text = finish_reason = ""
    for choice in choices:
        if choice.get("index", 0) == 0:
            text = _choice_text(choice, key)
            finish_reason = choice.get("finish_reason") or ""
    extra = "" if _plain(choices, key) and (key == "delta" or _reproducible(choices)) else raw
    if others:
        extra = msgspec.json.encode({"choices": msgspec.Raw((raw or "[]").encode()), **others}).decode()
    return Delta(text, extra, str(finish_reason), _text(answer.usage))


def _choice_text(choice: dict[str, Any], key: str) -> str:
    message = choice.get(key)
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else ""


def _plain(choices: list[dict[str, Any]], key: str) -> bool:
    """Whether nothing but role, text and finish reason of choice 0 is in there."""
    if not choices:
        return True
    if len(choices) > 1 or choices[0].get("index", 0) != 0:
        return False
    choice = choices[0]
    message = choice.get(key) or {}
    return (
        isinstance(message, dict)
        and isinstance(message.get("content") or "", str)
        and all(name in _PLAIN_MEMBERS or not value for name, value in choice.items())
        and all(name in _PLAIN_MESSAGE_MEMBERS or not value for name, value in message.items())
    )


def _reproducible(choices: list[dict[str, Any]]) -> bool:
    """Whether a whole answer that is plain is so to the letter: nothing empty that a client might look at."""
    for choice in choices:
        message = choice.get("message") or {}
        members = {**{name: choice[name] for name in choice.keys() - _PLAIN_MEMBERS},
                   **{name: message[name] for name in message.keys() - _PLAIN_MESSAGE_MEMBERS}}  # fmt: skip
        if any(value is not None for value in members.values()) or message.get("content", "") is None:
            return False
    return True


class _Said(msgspec.Struct, frozen=True):
    """An error body. ``members`` are those of the error object that have no place of their own."""

    message: str
    param: str = ""
    code: str = ""
    members: dict[str, Any] = {}


_NAMED = frozenset(("message", "detail", "code", "type", "param", "object"))


def _read_error(body: bytes) -> _Said:
    """An error body in any of the shapes in use."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Said(_quote(body))
    error = content.get("error", content) if isinstance(content, dict) else content
    if not isinstance(error, dict):
        return _Said(str(error))
    message = error.get("message") or error.get("detail") or _quote(body)
    code = error.get("code")
    if not isinstance(code, str) or code.isdigit():
        code = error.get("type") or ""  # a number repeats the status; the type says more
    members = {name: value for name, value in error.items() if name not in _NAMED and value is not None}
    # An error without an envelope stands in an event beside what every event has.
    if error is content:
        members = {name: value for name, value in members.items() if name not in _OWN}
    return _Said(str(message), str(error.get("param") or ""), str(code), members)


def _quote(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    return (text[:MAX_QUOTED] + " …" if len(text) > MAX_QUOTED else text) or "(an empty body)"


def _text(raw: msgspec.Raw) -> str:
    """The JSON text of a member, empty when it is absent or null."""
    text = bytes(raw).decode()
    return "" if text == "null" else text
