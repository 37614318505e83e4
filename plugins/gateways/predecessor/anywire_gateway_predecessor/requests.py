"""From a request of the predecessor's clients to a task.

A body may be large, so of its members only the small ones are looked into here; the others go on as they are to the
check that the gateway ``openai`` makes in pieces.
"""

from __future__ import annotations

import codecs
from typing import Any

import msgspec
from msgspec import Raw

from anywire.caller import Caller
from anywire.errors import InvalidRequest
from anywire.submission import Submission, checked_hints
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.validation import check, unreadable

NORMAL_PRIORITY = 5
"""The predecessor's; 0 is ours."""
MAX_PRIORITY = 1000
MAX_TIMEOUT_MS = 86_400_000
MAX_SMALL_BYTES = 4096
"""Of the text of a member that is looked into."""
_HINTS = ("urgency", "complexity", "task_type")
_OWN = frozenset({*_HINTS, "priority", "timeout_ms", "protocol", "session_id", "prompt"})
"""Members of its own; what is left is a request in OpenAI's form."""
_EMPTY = (b"", b"null", b"[]", b'""')

Members = dict[str, Raw]
_members = msgspec.json.Decoder(Members)
_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class Asked(msgspec.Struct):
    """A request of a client."""

    submission: Submission
    model: str
    task_type: str


def members_of(body: bytes) -> Members:
    """The members of a request, not looked into. Raises `InvalidRequest`."""
    try:
        return _members.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise unreadable(body, error, "Invalid JSON: ") from error


def object_of(body: bytes) -> dict[str, Any]:
    """A small JSON object. Raises `InvalidRequest`."""
    try:
        return _object.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"Invalid JSON: {error}") from error


def with_prompt(members: Members) -> Members:
    """The request for a chat whose one message is the prompt."""
    prompt = members.get("prompt")
    if prompt is None or _is_empty(prompt) or not _is_empty(members.get("messages")):
        return members
    return members | {"messages": Raw(b'[{"role":"user","content":' + bytes(prompt) + b"}]")}


async def asked(members: Members, default: DefaultModel, caller: Caller, max_bytes: int) -> Asked:
    """The task of a chat request, of at most ``max_bytes`` bytes. Raises `InvalidRequest` and `PayloadTooLarge`."""
    if _is_empty(members.get("messages")):
        raise InvalidRequest("No messages provided", param="messages")
    body: dict[str, Any] = {
        name: value for name, value in members.items() if name not in _OWN and bytes(value) != b"null"
    }
    _leave_defaults_out(body)
    model = _small(members, "model")
    body["model"] = model = model if isinstance(model, str) and model else default.of("chat", caller)
    fields, text, outline = await check("chat", _encode(body), max_bytes)
    hints = {name: value for name in _HINTS if (value := _small(members, name)) is not None}
    session = _small(members, "session_id")
    submission = Submission(
        "chat",
        model,
        text,
        bool(getattr(fields, "stream", False)),
        priority=_integer(members, "priority", NORMAL_PRIORITY, MAX_PRIORITY) - NORMAL_PRIORITY,
        deadline_s=max(_integer(members, "timeout_ms", 0, MAX_TIMEOUT_MS), 0) / 1e3,
        session=session if isinstance(session, str) and len(session) <= 256 and session.isprintable() else "",
        hints=checked_hints(hints),
        caller=caller,
        outline=outline,
    )
    return Asked(submission, model, str(hints.get("task_type") or "chat")[:64])


def _is_empty(value: Raw | None) -> bool:
    return value is None or bytes(value) in _EMPTY


def _small(members: Members, name: str) -> Any:
    raw = members.get(name)
    if raw is None:
        return None
    if len(bytes(raw)) > MAX_SMALL_BYTES:
        raise InvalidRequest(f"{name} is too long", param=name)
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"Invalid JSON: {name}: {error}", param=name) from error


def _leave_defaults_out(body: dict[str, Any]) -> None:
    """Leave out what means the default there: a temperature below 0, a length of 0 or less."""
    for name, least in (("temperature", 0.0), ("max_tokens", 1)):
        value = _small(body, name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value < least:
            del body[name]


def _integer(members: Members, name: str, default: int, bound: int) -> int:
    value = _small(members, name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -bound <= value <= bound:
        raise InvalidRequest(f"{name} must be an integer of at most {bound}", param=name)
    return value
