"""What a request for a message must look like, and the chat request that an engine gets for it: pure functions.

Members that Anthropic's Messages API has are read here. Others pass to the engine as they are, as those of a chat do
(``seed``, ``min_p`` …). What cannot be done is refused by name; what would change nothing is told in
``x-anywire-ignored``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from anywire.errors import InvalidRequest
from anywire_gateway_openai.anthropic.messages import Given, Object, chat_messages
from anywire_gateway_openai.chat_schema import Models, Number


class MessageRequest(Struct):
    messages: list[Given]
    model: str | None = None
    max_tokens: int | None = None
    system: str | list[Object] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: Number | None = None
    tools: list[Object] | None = None
    tool_choice: Object | None = None
    metadata: Object | None = None
    thinking: Object | None = None
    output_config: Object | None = None
    models: Models = None
    thread: Object | None = None
    anywire_api: UnsetType | None = UNSET
    anywire_betas: UnsetType | None = UNSET


decoder = msgspec.json.Decoder(MessageRequest)

REFUSED = {
    "mcp_servers": "no servers of tools are named in a message: they are configured at the engine",
    "container": "no code runs here",
    "compaction": "no history is shortened here",
    "output_format": "a message has `output_config.format`",
    "input": "a message is asked with `messages`",
    "prompt": "a message is asked with `messages`",
    "max_completion_tokens": "a message has `max_tokens`",
    "stop": "a message has `stop_sequences`",
    "response_format": "a message has `output_config.format`",
    "reasoning_effort": "a message has `output_config.effort`",
    "user": "a message has `metadata.user_id`",
    "parallel_tool_calls": "a message has `tool_choice.disable_parallel_tool_use`",
    "functions": "a message has `tools`",
    "function_call": "a message has `tool_choice`",
    "stream_options": "a streamed message tells its usage always",
    "n": "a message has one answer",
    "logprobs": "a message has none",
    "modalities": "a message is text",
    "audio": "a message is text",
}
"""Members that are refused, and what would do."""
IGNORED = (
    "cache_control",
    "service_tier",
    "inference_geo",
    "speed",
    "diagnostics",
    "user_profile_id",
    "thinking",
    "context_management",
    "fallbacks",
    "fallback_credit_token",
    "billing_policy",
)
"""Members of Anthropic's that change nothing here. Agents send some of them with every request."""
_OF_TOOLS = (
    "cache_control",
    "allowed_callers",
    "defer_loading",
    "eager_input_streaming",
    "input_examples",
)
"""Members of tools that change nothing here."""
MAX_USER_CHARS = 64
"""Of a user's name in a chat."""
_EMPTY: tuple[object, ...] = (None, [], {})
"""Values of a member that ask for nothing."""
_PASSED = ("max_tokens", "temperature", "top_p", "top_k", "models")
_OWN = frozenset((*MessageRequest.__struct_fields__, *REFUSED, *IGNORED))


class Asked(NamedTuple):
    """A request as a chat without its model, and the members without effect."""

    fields: MessageRequest
    chat: Object
    ignored: tuple[str, ...]

    @property
    def stop_sequences(self) -> tuple[str, ...]:
        return tuple(self.fields.stop_sequences or ())


def asked(fields: MessageRequest, body: Mapping[str, Any], *, counts_alone: bool = False) -> Asked:
    """The chat for a request. ``body`` is all of it; with ``counts_alone`` its tokens are counted, and it need not say
    how many the answer may have. Raises `InvalidRequest` that names the member at fault."""
    refuse_thread(fields)
    for name, why in REFUSED.items():
        if body.get(name) not in _EMPTY:
            raise InvalidRequest(f"{name} is not supported: {why}", param=name)
    if fields.max_tokens is None and not counts_alone:
        raise InvalidRequest("max_tokens is required", param="max_tokens")
    if not fields.messages:
        raise InvalidRequest("messages must have a message", param="messages")
    messages, of_blocks = chat_messages(fields.system, fields.messages)
    chat: Object = {"messages": messages}
    for name in _PASSED:
        if (value := getattr(fields, name)) is not None:
            chat[name] = value
    if fields.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if fields.stop_sequences:
        chat["stop"] = fields.stop_sequences
    if fields.metadata is not None and fields.metadata.get("user_id") is not None:
        chat["user"] = _user(_text(fields.metadata, "user_id", "metadata"))
    ignored = [name for name in IGNORED if body.get(name) is not None]
    chat |= _output(fields.output_config or {}, ignored)
    if fields.tools:
        chat |= _tools(fields.tools, fields.tool_choice, ignored)
    elif fields.tool_choice is not None and fields.tool_choice.get("type") in ("any", "tool"):
        raise InvalidRequest("tool_choice asks for a tool, and there are no tools", param="tool_choice")
    others = {name: value for name, value in body.items() if name not in _OWN}
    return Asked(fields, chat | others, tuple(dict.fromkeys((*ignored, *of_blocks))))


def refuse_thread(fields: MessageRequest) -> None:
    """Refuse a conversation that the server is to keep: later requests would have its newest messages alone.
    Anthropic's client sends all of them once it is told so by this code. Raises `InvalidRequest`."""
    if fields.thread is not None:
        raise InvalidRequest(
            "thread is not supported: no conversation is kept for messages; send all messages, and leave it out",
            param="thread",
            detail_code="thread_unsupported_request",
            members={"unsupported": ["thread"]},
        )


def _output(config: Mapping[str, Any], ignored: list[str]) -> Object:
    found: Object = {}
    if any(value is not None for name, value in config.items() if name not in ("effort", "format")):
        ignored.append("output_config")
    if config.get("effort") is not None:
        found["reasoning_effort"] = _text(config, "effort", "output_config")
    form = config.get("format")
    if form is None:
        return found
    if not isinstance(form, dict) or form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise InvalidRequest(
            "output_config.format must have the type json_schema, and a schema", param="output_config.format"
        )
    schema = {"name": "answer", "schema": form["schema"], "strict": True}
    return {**found, "response_format": {"type": "json_schema", "json_schema": schema}}


def _tools(tools: list[Object], choice: Object | None, ignored: list[str]) -> Object:
    functions: list[Object] = []
    for at, tool in enumerate(tools):
        where, kind = f"tools[{at}]", tool.get("type")
        if kind not in (None, "custom"):
            raise InvalidRequest(
                f"{where}.type: {str(kind)[:64]!r} is not supported, as models here do not know it: offer a tool with "
                "an input_schema, which the client runs",
                param=f"{where}.type",
            )
        if not isinstance(tool.get("input_schema"), dict):
            raise InvalidRequest(f"{where}.input_schema must be an object", param=f"{where}.input_schema")
        function: Object = {"name": _text(tool, "name", where), "parameters": tool["input_schema"]}
        for name in ("description", "strict"):
            if tool.get(name) is not None:
                function[name] = tool[name]
        ignored += [name for name in _OF_TOOLS if tool.get(name)]
        functions.append({"type": "function", "function": function})
    return {"tools": functions, **_choice(choice, functions)}


def _choice(choice: Object | None, functions: list[Object]) -> Object:
    if choice is None:
        return {}
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise InvalidRequest(
            f"tool_choice.type must be auto, any, tool or none, got {str(kind)[:64]!r}", param="tool_choice.type"
        )
    found: Object = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {}
    if kind == "tool":
        name = _text(choice, "name", "tool_choice")
        if all(each["function"]["name"] != name for each in functions):
            raise InvalidRequest("tool_choice.name must name one of the tools", param="tool_choice.name")
        return {**found, "tool_choice": {"type": "function", "function": {"name": name}}}
    return {**found, "tool_choice": "required" if kind == "any" else kind}


def _user(user_id: str) -> str:
    """Agents send longer ones than OpenAI's server takes: those become a digest, which is as good a name."""
    return user_id if len(user_id) <= MAX_USER_CHARS else hashlib.sha256(user_id.encode()).hexdigest()


def _text(given: Mapping[str, Any], member: str, where: str) -> str:
    value = given.get(member)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{member} must be a text", param=f"{where}.{member}")
    return value
