"""Going on where an earlier attempt ended: a server continues a text that was delivered already.

A completion goes on when the text is appended to its prompt. A chat goes on when the text is its last message, from the
assistant, and the server continues that message instead of beginning another one. How it is told to:

| way | servers | in the request |
|---|---|---|
| ``last_message`` | llama.cpp, Ollama, LMDeploy | nothing: a last message of the assistant is always continued |
| ``continue_final_message`` | vLLM, SGLang | that member, and ``"add_generation_prompt": false`` beside it |

The tokens of the text count as generated: they shorten what is left to generate, and move from the prompt's side of the
usage to the answer's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, Literal, NamedTuple

import msgspec

from anywire.demand import CHARS_PER_TOKEN, beyond_text
from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import TaskRequest
from anywire_engine_openai.connection_errors import ConnectionFailed
from anywire_engine_openai.requests import LENGTHS, members
from anywire_engine_openai.upstream import Upstream

Way = Literal["last_message", "continue_final_message"]

WAYS: dict[str, Way] = {
    "llamacpp": "last_message",
    "vllm": "continue_final_message",
    "sglang": "continue_final_message",
}
"""By what servers say of themselves in their lists of models (``owned_by``)."""

_WHOLE = (
    *("grammar", "json_schema"),  # llama.cpp
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"),  # vLLM
    *("regex", "ebnf", "structural_tag"),  # SGLang
    *("echo", "suffix"),
)
"""Members that shape the answer as a whole, beside what `beyond_text` names: it cannot be picked up in its middle."""
_CONTINUE = "continue_final_message"
_LOOKED_AT = {"messages", "prompt", _CONTINUE, *LENGTHS, *_WHOLE}

_encode = msgspec.json.Encoder().encode

log = logging.getLogger(__name__)


class _Tokens(msgspec.Struct):
    tokens: list[int]


class Rest(NamedTuple):
    """What to ask for the rest of an answer; ``is_over``: nothing of it is left to generate, and one token that is
    asked for is not wanted."""

    task: TaskRequest
    is_over: bool


async def resumed(
    upstream: Upstream, task: TaskRequest, model: str, way: Way, default_max_tokens: int = 0
) -> AsyncGenerator[Delta | EngineProgress, None]:
    """The rest of the answer to ``task`` whose beginning is ``task.resume``. Its usage is that of the whole answer.

    Raises what `Upstream.answer` raises, and `EngineFailed` when this kind of request cannot be resumed, or the server
    does not take it so: the client's own request was good."""
    delivered = await _count(upstream, task.resume, model)
    rest = continuation(task, delivered, default_max_tokens, way)
    try:
        async with contextlib.aclosing(upstream.answer(rest.task, model, begun=True)) as deltas:
            async for delta in deltas:
                if isinstance(delta, EngineProgress):
                    yield delta
                    continue
                told = accounted(delta, delivered, made=0 if rest.is_over else None)
                if not rest.is_over:
                    yield told
                elif told.usage or told.attempts_used:
                    yield Delta(usage=told.usage, attempts_used=told.attempts_used)
    except InvalidRequest as error:
        raise EngineFailed(f"the server does not resume this answer: {error}", status=error.status) from error
    if rest.is_over:
        yield Delta(finish_reason="length")


def continuation(task: TaskRequest, delivered: int, default_max_tokens: int, way: Way) -> Rest:
    """``task`` with its ``resume`` text, of ``delivered`` tokens, in the body. Raises `EngineFailed` when this kind of
    request cannot be resumed."""
    content = members(task.body)
    given = _given(content)
    hindrance = _why_not(task, given, way)
    if hindrance:
        raise EngineFailed(hindrance)
    changed: dict[str, Any] = {}
    if task.kind == "chat":
        changed["messages"] = _continue_chat(given["messages"], task.resume)
        if way == _CONTINUE:
            changed |= {_CONTINUE: True, "add_generation_prompt": False}
    else:
        changed["prompt"] = given["prompt"] + task.resume
    name = next((name for name in LENGTHS if given.get(name) is not None), LENGTHS[0])
    allowed = given.get(name) if given.get(name) is not None else default_max_tokens or None
    is_over = False
    if isinstance(allowed, int | float) and allowed >= 0:
        is_over = allowed <= delivered
        changed[name] = max(1, int(allowed) - delivered)
    body = _encode(content | {key: msgspec.Raw(_encode(value)) for key, value in changed.items()})
    return Rest(msgspec.structs.replace(task, body=body.decode(), resume=""), is_over)


def can_be_resumed(task: TaskRequest, way: Way) -> bool:
    """Whether an answer to ``task`` could be continued from its text."""
    try:
        return not _why_not(task, _given(members(task.body)), way)
    except (InvalidRequest, msgspec.MsgspecError):
        return False


def accounted(delta: Delta, delivered: int, made: int | None = None) -> Delta:
    """``delta`` with ``delivered`` tokens counted as generated and not as prompt. ``made``: how many were generated
    besides; default: as many as the server says."""
    if not delta.usage:
        return delta
    usage = msgspec.json.decode(delta.usage)
    if not isinstance(usage, dict):
        return delta
    answer = _number(usage, "completion_tokens") if made is None else made
    prompt = max(0, _number(usage, "prompt_tokens") - delivered)
    usage |= {"prompt_tokens": prompt, "completion_tokens": answer + delivered}
    usage["total_tokens"] = prompt + answer + delivered
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and _number(details, "cached_tokens") > prompt:
        usage["prompt_tokens_details"] = details | {"cached_tokens": prompt}
    return msgspec.structs.replace(delta, usage=_encode(usage).decode())


async def _count(upstream: Upstream, text: str, model: str) -> int:
    """How many tokens a text has: as the server says, and where it does not tell, estimated by its length."""
    # llama.cpp reads the first and the last member, vLLM and SGLang the others.
    asked = {"content": text, "model": model, "prompt": text, "add_special_tokens": False, "add_special": False}
    try:
        answer = await upstream.ask(f"{upstream.base_url.removesuffix('/v1')}/tokenize", asked)
        return len(msgspec.json.decode(answer, type=_Tokens).tokens)
    except ConnectionFailed:
        raise
    except (EngineFailed, msgspec.MsgspecError) as error:
        log.debug("tokens are estimated: %s", error)
        return max(1, len(text) // CHARS_PER_TOKEN)


def _given(content: dict[str, msgspec.Raw]) -> dict[str, Any]:
    return {name: msgspec.json.decode(raw) for name, raw in content.items() if name in _LOOKED_AT}


def _why_not(task: TaskRequest, given: dict[str, Any], way: Way) -> str:
    """Why an answer to this request cannot be resumed, as a sentence; empty when it can."""
    hindrance = beyond_text(task.body) or next((name for name in _WHOLE if given.get(name)), "")
    if hindrance:
        return f"an answer with {hindrance} cannot be resumed"
    messages = given.get("messages")
    if task.kind == "chat" and isinstance(messages, list):
        if messages and _is_assistants(messages[-1]):
            if not isinstance(messages[-1].get("content"), str):
                return "a chat that ends with an assistant's message of several parts cannot be resumed"
            if way == _CONTINUE and given.get(_CONTINUE) is not True:
                return "a chat that ends with an assistant's message that is not to be continued cannot be resumed"
    elif task.kind != "completion" or not isinstance(given.get("prompt"), str):
        return "only a chat, or a completion of one text, can be resumed"
    return ""


def _is_assistants(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _continue_chat(messages: list[Any], text: str) -> list[Any]:
    if messages and _is_assistants(messages[-1]):  # the client had one continued itself
        return [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + text}]
    return [*messages, {"role": "assistant", "content": text}]


def _number(of: dict[str, Any], name: str) -> int:
    value = of.get(name)
    return value if type(value) is int else 0
