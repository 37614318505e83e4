"""The request as the server gets it: the client's own JSON but for the members the engine answers for."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from anywire.errors import InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire.native_api import BETAS, BETAS_HEADER, COUNT_TOKENS, MEMBER, are_betas

PATHS: dict[Kind, str] = {"chat": "/chat/completions", "completion": "/completions", "embedding": "/embeddings"}

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder().decode
_NO_BETAS = msgspec.Raw(b"null")
_TRUE, _FALSE, _NULL = msgspec.Raw(b"true"), msgspec.Raw(b"false"), b"null"
LENGTHS = ("max_tokens", "max_completion_tokens", "n_predict")
"""The members by which a client may bound the answer."""


def members(body: str) -> dict[str, msgspec.Raw]:
    """The members of a request, each as the client wrote it. Raises `InvalidRequest`."""
    try:
        return _members.decode(body)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidRequest(f"the request body is no JSON object: {error}", status=400) from error


class Asked(NamedTuple):
    """A body to send, and how many choices its answer should have."""

    body: bytes
    choices: int


def upstream_body(task: TaskRequest, model: str, default_max_tokens: int) -> Asked:
    """What to send: ``model`` as the server names it and no ``models`` beside it, streaming as the task says (and
    with usage, which the agent wants to know), and a length where the client set none. All else is passed on
    verbatim."""
    content = members(task.body)
    content["model"] = msgspec.Raw(_encode(model))
    content.pop("models", None)
    if task.kind == "embedding":
        return Asked(_encode(content), 1)
    content["stream"] = _TRUE if task.stream else _FALSE
    if task.stream:
        content["stream_options"] = _with_usage(content.get("stream_options"))
    else:
        content.pop("stream_options", None)
    if default_max_tokens and all(bytes(content.get(name, _NULL)) == _NULL for name in LENGTHS):
        content["max_tokens"] = msgspec.Raw(str(default_max_tokens).encode())
    return Asked(_encode(content), _choices(content))


class NativeAsked(NamedTuple):
    """A body to send, and headers that belong to it."""

    body: bytes
    headers: dict[str, str]


def native_body(task: TaskRequest, model: str, endpoint: str) -> NativeAsked:
    """What to send to an endpoint of another API that the server speaks (`anywire.native_api`): the same of it."""
    content = members(task.body)
    content["model"] = msgspec.Raw(_encode(model))
    betas = _any(content.pop(BETAS, _NO_BETAS))
    for name in (MEMBER, "models"):
        content.pop(name, None)
    if endpoint != COUNT_TOKENS:
        content["stream"] = _TRUE if task.stream else _FALSE
    return NativeAsked(_encode(content), {BETAS_HEADER: betas} if are_betas(betas) else {})


def _choices(content: dict[str, msgspec.Raw]) -> int:
    """``n`` for each prompt; what is no number is the server's to refuse."""
    n, prompt = bytes(content.get("n", _NULL)), content.get("prompt")
    choices = int(n) if n.isdigit() and len(n) < 4 else 1
    if prompt is not None and bytes(memoryview(prompt)[:1]) == b"[":
        prompts = _list.decode(prompt)
        if prompts and bytes(memoryview(prompts[0])[:1]) in (b'"', b"["):  # numbers are the tokens of one prompt
            choices *= len(prompts)
    return choices


def trace_headers(trace: str) -> dict[str, str] | None:
    """The W3C headers that `anywire.messages.TaskRequest.trace` stands for."""
    if not trace:
        return None
    parent, _, state = trace.partition(" ")
    return {"traceparent": parent, "tracestate": state} if state else {"traceparent": parent}


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw:
    if options is None or bytes(options) == _NULL:
        return msgspec.Raw(b'{"include_usage":true}')
    try:
        content = _members.decode(options)
    except msgspec.DecodeError:
        raise InvalidRequest("stream_options must be an object", param="stream_options", status=400) from None
    content["include_usage"] = _TRUE
    return msgspec.Raw(_encode(content))
