"""Going on where an earlier attempt ended: the request that makes llama.cpp continue a text already delivered.

A chat goes on when the text is the last message, from the assistant (llama.cpp then continues that message); a
completion when it is appended to the prompt. Its tokens count as generated: they shorten what is left to
generate, and move from the prompt's side of the usage to the answer's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.demand import beyond_text
from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import TaskRequest
from anywire_engine_openai.requests import LENGTHS, members

_CONSTRAINTS = ("grammar", "json_schema")
"""What shapes the answer as a whole, and cannot be picked up in its middle; beside what `beyond_text` names."""
_LOOKED_AT = {"messages", "prompt", *LENGTHS, *_CONSTRAINTS}

_encode = msgspec.json.Encoder().encode


def continuation(task: TaskRequest, delivered: int, default_max_tokens: int) -> TaskRequest | None:
    """``task`` with its ``resume`` text (of ``delivered`` tokens) in the body; None when nothing is left to
    generate. Raises `EngineFailed` when this kind of request cannot be resumed."""
    content = members(task.body)
    given = _given(content)
    hindrance = _why_not(task, given)
    if hindrance:
        raise EngineFailed(hindrance)
    changed: dict[str, Any] = {}
    if task.kind == "chat":
        changed["messages"] = _continue_chat(given["messages"], task.resume)
    else:
        changed["prompt"] = given["prompt"] + task.resume
    name = next((name for name in LENGTHS if given.get(name) is not None), LENGTHS[0])
    allowed = given.get(name, default_max_tokens)
    if isinstance(allowed, int | float) and allowed >= 0:
        changed[name] = int(allowed) - delivered
        if changed[name] <= 0:
            return None
    body = _encode(content | {key: msgspec.Raw(_encode(value)) for key, value in changed.items()})
    return msgspec.structs.replace(task, body=body.decode(), resume="")


def can_be_resumed(task: TaskRequest) -> bool:
    """Whether an answer to ``task`` could be continued from its text."""
    try:
        return not _why_not(task, _given(members(task.body)))
    except (InvalidRequest, msgspec.MsgspecError):
        return False


def _given(content: dict[str, msgspec.Raw]) -> dict[str, Any]:
    return {name: msgspec.json.decode(raw) for name, raw in content.items() if name in _LOOKED_AT}


def _why_not(task: TaskRequest, given: dict[str, Any]) -> str:
    """Why an answer to this request cannot be resumed, as a sentence; empty when it can."""
    hindrance = beyond_text(task.body) or next((name for name in _CONSTRAINTS if given.get(name)), "")
    if hindrance:
        return f"an answer with {hindrance} cannot be resumed"
    messages = given.get("messages")
    if task.kind == "chat" and isinstance(messages, list):
        if messages and _is_assistants(messages[-1]) and not isinstance(messages[-1].get("content"), str):
            return "a chat that ends with an assistant's message of several parts cannot be resumed"
    elif task.kind != "completion" or not isinstance(given.get("prompt"), str):
        return "only a chat, or a completion of one text, can be resumed"
    return ""


def _is_assistants(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _continue_chat(messages: list[Any], text: str) -> list[Any]:
    if messages and _is_assistants(messages[-1]):  # the client had one continued itself
        return [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + text}]
    return [*messages, {"role": "assistant", "content": text}]


def accounted(delta: Delta, delivered: int) -> Delta:
    """``delta`` with ``delivered`` tokens counted as generated and not as prompt."""
    if not delta.usage:
        return delta
    usage = msgspec.json.decode(delta.usage)
    usage["completion_tokens"] = usage.get("completion_tokens", 0) + delivered
    usage["prompt_tokens"] = max(0, usage.get("prompt_tokens", 0) - delivered)
    return msgspec.structs.replace(delta, usage=_encode(usage).decode())
