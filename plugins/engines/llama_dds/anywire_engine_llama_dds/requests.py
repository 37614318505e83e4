"""From an OpenAI chat request to a ChatCompletionRequest; what the wire has no place for is the client's error."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from anywire.errors import InvalidRequest
from anywire.messages import TaskRequest
from anywire_dds.llama_types import ChatCompletionRequest, ChatMessage


class _Part(Struct):
    type: str
    text: str = ""


class _Message(Struct, forbid_unknown_fields=True):
    role: str
    content: str | list[_Part] = ""
    name: str | None = None


class _Body(Struct, forbid_unknown_fields=True):
    """The members that the wire carries, and below them those that say nothing, or nothing of the answer."""

    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str = ""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    stream: bool | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=1)] | None = None

    stream_options: Any = None
    user: Any = None
    safety_identifier: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    models: Any = None


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logprobs": (None, False),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "response_format": (None, {"type": "text"}),
}
"""Members that other clients set to what holds without them."""

_LENGTHS = ("max_tokens", "max_completion_tokens")
"""Where -1 means that any length will do."""
_WHOLE = (*_LENGTHS, "n")
"""Whole numbers, which clients also write as ``5.0``."""

GREEDY = 1e-4
"""Sent for a temperature of 0, which on this wire would leave the choice to the server: so small that the most likely
token is taken each time."""

_members = msgspec.json.Decoder(dict[str, Any])


def wire_request(
    task: TaskRequest, request_id: str, model: str, temperature: float, max_tokens: int
) -> ChatCompletionRequest:
    """The request as the server gets it. Raises `InvalidRequest`."""
    if task.kind != "chat":
        raise InvalidRequest(f"this engine does chat only, not {task.kind}", status=400)
    try:
        members = {
            name: _whole(value) if name in _WHOLE else value
            for name, value in _members.decode(task.body).items()
            if value is not None
            and not (any(value == each for each in _NEUTRAL.get(name, ())) or (name in _LENGTHS and value == -1))
        }
        if isinstance(members.get("messages"), list):
            members["messages"] = [_present(each) for each in members["messages"]]
        body = msgspec.convert(members, _Body)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidRequest(
            f"the DDS service cannot take this request: {error}. It knows messages of role and text, temperature, "
            "max_tokens, top_p, one stop sequence, stream, and n of 1",
            status=400,
            detail_code="unsupported",
        ) from error
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return ChatCompletionRequest(
        request_id,
        model,
        [_message(each, number) for number, each in enumerate(body.messages)],
        (temperature if body.temperature is None else body.temperature) or GREEDY,
        body.max_completion_tokens or body.max_tokens or max_tokens,
        task.stream,
        [] if body.top_p is None else [body.top_p],
        [],
        stop,
    )


def _present(message: Any) -> Any:
    """A message without its empty members: clients send back answers as they got them, with null for what is not
    there."""
    if not isinstance(message, dict):
        return message
    return {name: value for name, value in message.items() if value is not None and value != []}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _message(message: _Message, number: int) -> ChatMessage:
    if message.name is not None:
        raise _no_place(f"messages[{number}].name")
    if isinstance(message.content, str):
        return ChatMessage(message.role, message.content)
    for part in message.content:
        if part.type != "text":
            raise _no_place(f"messages[{number}].content with a part of type {part.type[:64]!r}")
    return ChatMessage(message.role, "".join(part.text for part in message.content))


def _no_place(what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} has no place on the wire of the DDS service: leave it out",
        param=what.split()[0],
        status=400,
        detail_code="unsupported",
    )
