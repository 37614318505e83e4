"""Going on where an earlier attempt ended: the request that makes llama.cpp continue a text already delivered.

A chat goes on when the text is the last message, from the assistant (llama.cpp then continues that message); a
completion when it is appended to the prompt. Its tokens count as generated: they shorten what is left to
generate, and move from the prompt's side of the usage to the answer's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.messages import TaskRequest
from anywire_engine_openai.requests import LENGTHS, members

_CONSTRAINTS = ("tools", "functions", "response_format", "grammar", "json_schema")
"""What shapes the answer as a whole, and cannot be picked up in its middle."""
_LOOKED_AT = {"messages", "prompt", "n", *LENGTHS, *_CONSTRAINTS}

_encode = msgspec.json.Encoder().encode


def continuation(task: TaskRequest, delivered: int, default_max_tokens: int) -> TaskRequest | None:
    """``task`` with its ``resume`` text (of ``delivered`` tokens) in the body; None when nothing is left to
    generate. Raises `EngineFailed` when this kind of request cannot be resumed."""
    content = members(task.body)
    given: dict[str, Any] = {name: msgspec.json.decode(raw) for name, raw in content.items() if name in _LOOKED_AT}
    hindrance = next((name for name in _CONSTRAINTS if given.get(name)), "")
    if hindrance or (given.get("n") or 1) != 1:
        raise EngineFailed(f"an answer with {hindrance or 'n'} cannot be resumed")
    changed: dict[str, Any] = {}
    if task.kind == "chat" and isinstance(given.get("messages"), list):
        changed["messages"] = _continue_chat(given["messages"], task.resume)
    elif task.kind == "completion" and isinstance(given.get("prompt"), str):
        changed["prompt"] = given["prompt"] + task.resume
    else:
        raise EngineFailed("only a chat, or a completion of one text, can be resumed")
    name = next((name for name in LENGTHS if given.get(name) is not None), LENGTHS[0])
    allowed = given.get(name, default_max_tokens)
    if isinstance(allowed, int) and allowed >= 0:
        changed[name] = allowed - delivered
        if changed[name] <= 0:
            return None
    body = _encode(content | {key: msgspec.Raw(_encode(value)) for key, value in changed.items()})
    return msgspec.structs.replace(task, body=body.decode(), resume="")


def _continue_chat(messages: list[Any], text: str) -> list[Any]:
    last = messages[-1] if messages else None
    if isinstance(last, dict) and last.get("role") == "assistant":  # the client had one continued itself
        if not isinstance(last.get("content"), str):
            raise EngineFailed("a chat that ends with an assistant's message of several parts cannot be resumed")
        return [*messages[:-1], {**last, "content": last["content"] + text}]
    return [*messages, {"role": "assistant", "content": text}]


def accounted(delta: Delta, delivered: int) -> Delta:
    """``delta`` with ``delivered`` tokens counted as generated and not as prompt."""
    if not delta.usage:
        return delta
    usage = msgspec.json.decode(delta.usage)
    usage["completion_tokens"] = usage.get("completion_tokens", 0) + delivered
    usage["prompt_tokens"] = max(0, usage.get("prompt_tokens", 0) - delivered)
    return msgspec.structs.replace(delta, usage=_encode(usage).decode())
