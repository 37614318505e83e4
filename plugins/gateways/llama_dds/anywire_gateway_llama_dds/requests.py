"""From a ChatCompletionRequest to a task: what is wrong with it, or the OpenAI body that says the same."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from anywire.caller import ANYBODY, Caller
from anywire.errors import InvalidRequest
from anywire.submission import Submission
from anywire_dds.llama_types import ChatCompletionRequest

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_STOP_SEQUENCES = 16

_encode = msgspec.json.Encoder().encode


def submission(request: ChatCompletionRequest, model: str, caller: Caller = ANYBODY) -> Submission:
    """The request as a task of ``caller`` for ``model``. Raises `InvalidRequest`."""
    body: dict[str, Any] = {"model": model, "messages": _messages(request)}
    body["temperature"] = _number(request.temperature, "temperature", 2.0)
    if request.max_tokens > 0:
        body["max_tokens"] = request.max_tokens
    body["stream"] = request.stream
    if (top_p := _optional(request.top_p, "top_p")) is not None:
        body["top_p"] = _number(top_p, "top_p", 1.0)
    if (n := _optional(request.n, "n")) is not None and n != 1:
        raise InvalidRequest(f"n must be 1, got {n}: a response has no room for more than one choice", param="n")
    if len(request.stop) > MAX_STOP_SEQUENCES:
        raise InvalidRequest(f"stop may have at most {MAX_STOP_SEQUENCES} sequences", param="stop")
    if request.stop:
        body["stop"] = list(request.stop)
    return Submission("chat", model, _encode(body).decode(), request.stream, caller=caller)


def _messages(request: ChatCompletionRequest) -> list[dict[str, str]]:
    if not request.messages:
        raise InvalidRequest("messages must have at least 1 item", param="messages")
    for number, message in enumerate(request.messages):
        if message.role not in ROLES:
            raise InvalidRequest(
                f"messages[{number}].role must be one of {', '.join(ROLES)}, got {message.role[:64]!r}",
                param=f"messages[{number}].role",
            )
    return [{"role": message.role, "content": message.content} for message in request.messages]


def _number(value: float, name: str, highest: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= highest):
        raise InvalidRequest(f"{name} must be a number from 0 to {highest:g}, got {value:g}", param=name)
    # A float of the wire has 24 bits: 0.7 comes as 0.699999988, and what the client wrote is the shorter one.
    return float(f"{value:.7g}")


def _optional(values: list[Any], name: str) -> Any:
    if len(values) > 1:
        raise InvalidRequest(f"{name} may have at most one element, got {len(values)}", param=name)
    return values[0] if values else None
