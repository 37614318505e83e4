"""What an OpenAI-compatible server says, turned into deltas and errors.

The common case, a step with plain text of choice 0, is decoded once into small structs that reject unknown
fields. Whatever does not fit goes the long way: in a step null and empty members count as absent, and if something
beyond plain text remains, the server's own ``choices`` JSON is passed on verbatim. With ``keep`` members of the answer
beside its choices (``system_fingerprint``, ``service_tier`` and whatever a server invents) are passed on too, of a
stream those of events that say more than text: servers repeat them on each, and the last suffices.
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest
from anywire.extra import split
from anywire_engine_openai.mending import mended, mended_further
from anywire_engine_openai.server_errors import OWN_MEMBERS, error_in_answer, quoted

_ABSENT = msgspec.Raw()


class _PlainDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str | None = None
    role: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_content: None = None
    reasoning: None = None


class _PlainChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
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


class _NoMore(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of an answer that are not passed on beside its choices, and those that servers write as null."""

    id: msgspec.Raw = _ABSENT
    object: msgspec.Raw = _ABSENT
    created: msgspec.Raw = _ABSENT
    model: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT
    obfuscation: msgspec.Raw = _ABSENT
    error: None = None
    system_fingerprint: None = None
    service_tier: None = None
    prompt_logprobs: None = None
    prompt_token_ids: None = None
    kv_transfer_params: None = None


class _LastEvent(_NoMore, forbid_unknown_fields=True, gc=False, kw_only=True):
    choices: list[_PlainChoice]


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str = ""
    role: str | None = None
    refusal: None = None
    annotations: None = None
    audio: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_content: None = None
    reasoning: None = None


class _WholeChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: int = 0
    message: _PlainMessage | None = None
    text: str = ""
    finish_reason: str | None = None
    logprobs: None = None
    stop_reason: None = None
    token_ids: None = None
    prompt_token_ids: None = None
    prompt_logprobs: None = None


class _WholeAnswer(_NoMore, forbid_unknown_fields=True, gc=False, kw_only=True):
    choices: list[_WholeChoice]


class _Answer(msgspec.Struct):
    choices: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


_plain_event = msgspec.json.Decoder(_PlainEvent)
_last_event = msgspec.json.Decoder(_LastEvent)
_whole_answer = msgspec.json.Decoder(_WholeAnswer)
_answer = msgspec.json.Decoder(_Answer)
_choices = msgspec.json.Decoder(list[dict[str, Any]])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

_PLAIN_MEMBERS = {"index", "finish_reason", "text", "delta", "message"}
_PLAIN_MESSAGE_MEMBERS = {"role", "content"}


def step(data: bytes, *, keep: bool = False) -> Delta | None:
    """The delta of one event of a stream; None when it says nothing (a role, a keep-alive, ``null``). What is no
    character (half of a surrogate pair, bytes that are no UTF-8) becomes U+FFFD.

    Raises `EngineFailed` or `InvalidRequest` for an error event, and `EngineFailed` for what is no OpenAI chunk."""
    try:
        event = _plain_event.decode(data)
        usage = _text(event.usage)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _any_step(mended(data), keep) if data.strip() not in (b"", b"null") else None
    choices = event.choices
    if len(choices) != 1 or choices[0].index != 0:
        if choices or (keep and not _says_no_more(data)):
            return _any_step(data, keep)
        return Delta(usage=usage) if usage else None
    choice = choices[0]
    if keep and choice.finish_reason and not _says_no_more(data):
        return _any_step(data, keep)
    text = (choice.delta.content if choice.delta is not None else choice.text) or ""
    finish_reason = choice.finish_reason or ""
    return Delta(text, "", finish_reason, usage) if text or finish_reason or usage else None


def plain_text(data: bytes, *, keep: bool = False) -> str:
    """The text of an event that says nothing else; empty for every other one."""
    try:
        delta = step(data, keep=keep)
    except (EngineFailed, InvalidRequest):
        return ""
    return delta.text if delta is not None and is_text(delta) else ""


def is_text(delta: Delta) -> bool:
    """Whether it is nothing but text."""
    return bool(delta.text) and not (delta.extra or delta.finish_reason or delta.usage)


def _any_step(data: bytes, keep: bool) -> Delta | None:
    delta = _read(data, "an event of the stream", "delta", keep)
    return delta if delta.text or delta.extra or delta.finish_reason or delta.usage else None


def whole(data: bytes, *, keep: bool = False) -> Delta:
    """The delta of a unary chat or completion answer. Raises `EngineFailed`, or `InvalidRequest` when it tells a fault
    of the request."""
    try:
        answer = _whole_answer.decode(data)
        usage = _text(answer.usage)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read(mended(data), "the answer", "message", keep)
    choices = answer.choices
    if len(choices) != 1 or choices[0].index != 0 or "\\u" in usage:
        return _read(mended(data), "the answer", "message", keep)
    choice = choices[0]
    text = choice.text if choice.message is None else choice.message.content
    return Delta(text, "", choice.finish_reason or "", usage)


def _says_no_more(data: bytes) -> bool:
    """Whether a plain event has nothing beside its choices that is passed on."""
    try:
        _last_event.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def embeddings(body: bytes) -> Delta:
    """The delta of an embeddings answer. Raises `EngineFailed`, also when there is no embedding in it."""
    answer, _ = _decode(mended(body), "the answer")
    data = _text(answer.data)
    if data in ("", "[]"):
        raise EngineFailed("the server answered without an embedding", phase="streaming")
    return Delta(extra=data, usage=_text(answer.usage))


def is_answer(delta: Delta) -> bool:
    """Whether a delta proves that the server answered: text, a member beyond text, tokens in the usage, or a reason to
    end other than ``stop`` (the length, a filter)."""
    if delta.text or delta.finish_reason not in ("", "stop"):
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


def _read(data: bytes, what: str, key: str, keep: bool) -> Delta:
    answer, data = _decode(data, what)
    return _delta(answer, key, _others(data) if keep else None)


def _decode(data: bytes, what: str) -> tuple[_Answer, bytes]:
    """The answer, and the JSON text that it was read from."""
    try:
        answer = _answer.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        further = mended_further(data)
        if further != data:
            return _decode(further, what)
        raise EngineFailed(f"{what} is no OpenAI JSON ({error}): {quoted(data)}", phase="streaming") from error
    if _text(answer.error):
        raise error_in_answer(data)
    return answer, data


def _others(data: bytes) -> dict[str, msgspec.Raw]:
    return {
        name: value
        for name, value in _members.decode(data).items()
        if name not in OWN_MEMBERS and bytes(value) != b"null"
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


def _text(raw: msgspec.Raw) -> str:
    """The JSON text of a member, empty when it is absent or null."""
    text = bytes(raw).decode()
    return "" if text == "null" else text
