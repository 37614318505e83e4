"""From a ChatCompletionRequest to a task: what is wrong with it, or the OpenAI body that says the same.

The service of this contract takes nearly everything: a number out of range means its own default, a role is whatever
the model's template makes of it, and a request for several choices gets one. Its clients count on that.
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.caller import ANYBODY, Caller
from anywire.errors import InvalidRequest
from anywire.submission import Submission
from anywire_dds.llama_types import ChatCompletionRequest

MAX_TEMPERATURE = 2.0
MAX_STOP_SEQUENCES = 16

_encode = msgspec.json.Encoder().encode


def submission(request: ChatCompletionRequest, model: str, caller: Caller = ANYBODY) -> Submission:
    """The request as a task of ``caller`` for ``model``. Raises `InvalidRequest`."""
    if not request.messages:
        raise InvalidRequest("messages must have at least 1 item", param="messages")
    messages = [{"role": each.role, "content": each.content} for each in request.messages]
    body: dict[str, Any] = {"model": model, "messages": messages}
    if request.temperature > 0:  # false for NaN too
        body["temperature"] = _number(min(request.temperature, MAX_TEMPERATURE))
    if request.max_tokens > 0:
        body["max_tokens"] = request.max_tokens
    body["stream"] = request.stream
    if request.top_p and 0 <= request.top_p[0] <= 1:
        body["top_p"] = _number(request.top_p[0])
    stop = [each for each in request.stop if each]
    if len(stop) > MAX_STOP_SEQUENCES:
        raise InvalidRequest(f"stop may have at most {MAX_STOP_SEQUENCES} sequences", param="stop")
    if stop:
        body["stop"] = stop
    return Submission("chat", model, _encode(body).decode(), request.stream, caller=caller)


def _number(value: float) -> float:
    """A float of the wire has 24 bits: 0.7 comes as 0.699999988, and what the client wrote is the shorter one."""
    return float(f"{value:.7g}")
