"""What a request for a response must look like, and the chat request that an engine gets for it: pure functions.

Members that OpenAI's Responses API has are read here. Others pass to the engine as they are, as those of a chat do
(``seed``, ``top_k`` …). What cannot be done is refused by name; what would change nothing is told in
``x-anywire-ignored``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from anywire.conversation_items import MAX_ITEMS, Item, check_nesting, checked_items, checked_metadata, user_message
from anywire.errors import InvalidRequest, PayloadTooLarge
from anywire.submission import MAX_HINT_CHARS, Hints, checked_hints
from anywire_gateway_openai.chat_schema import Models, Number
from anywire_gateway_openai.responses.messages import ENCRYPTED, chat_messages, unread

_encode = msgspec.json.Encoder().encode

Object = dict[str, Any]
LOGPROBS = "message.output_text.logprobs"
REASONING = "reasoning.encrypted_content"


class Text(Struct):
    format: Object | None = None
    verbosity: str | None = None


class Reasoning(Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ConversationName(Struct):
    id: str


class ResponseRequest(Struct):
    input: str | list[Object] | None = None
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationName | None = None
    max_output_tokens: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    top_logprobs: int | None = None
    tools: list[Object] | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    metadata: Object | None = None
    truncation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    models: Models = None

    @property
    def conversation_id(self) -> str:
        """Empty for none."""
        named = self.conversation
        return named.id if isinstance(named, ConversationName) else named or ""


decoder = msgspec.json.Decoder(ResponseRequest)
members = msgspec.json.Decoder(Object)

REFUSED = {
    "prompt": "no prompts are kept here: send `instructions` and `input`",
    "moderation": "nothing is moderated here",
    "context_management": "no history is shortened here",
    "access_programs": "there are none here",
    "image": "images go to the model as they are",
    "messages": "a response is asked with `input`",
    "max_tokens": "a response has `max_output_tokens`",
    "max_completion_tokens": "a response has `max_output_tokens`",
    "response_format": "a response has `text.format`",
    "reasoning_effort": "a response has `reasoning.effort`",
    "verbosity": "a response has `text.verbosity`",
    "logprobs": f"a response has `include: [{LOGPROBS}]`",
    "n": "a response has one answer",
    "functions": "a response has `tools`",
    "function_call": "a response has `tool_choice`",
    "modalities": "a response is text",
    "audio": "a response is text",
    "anywire_api": "it is no member of a request",
}
"""Members that are refused, and what would do."""
IGNORED = ("max_tool_calls", "prompt_cache_options", "prompt_cache_retention", "stream_options")
"""Members of OpenAI's that change nothing here."""
_PASSED = ("temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key")
_OWN = frozenset((*ResponseRequest.__struct_fields__, *REFUSED, *IGNORED))


class Asked(NamedTuple):
    """A request, its input as items, the members that pass to the engine as they are, and those without effect."""

    fields: ResponseRequest
    items: list[Item]
    others: Object
    ignored: tuple[str, ...]


def asked(fields: ResponseRequest, body: Mapping[str, Any], references: Mapping[str, Item]) -> Asked:
    """Check what a request says beyond its types. ``body`` is all of it, ``references`` are the kept items that its
    input names by their ids. Raises `InvalidRequest` that names the member at fault."""
    check_nesting(body)
    for name, why in REFUSED.items():
        if body.get(name) is not None:
            raise InvalidRequest(f"{name} is not supported: {why}", param=name)
    if fields.input is None:
        raise InvalidRequest("input is required", param="input")
    if fields.previous_response_id and fields.conversation_id:
        raise InvalidRequest(
            "previous_response_id and conversation are two ways to go on: name one of them", param="conversation"
        )
    checked_metadata(fields.metadata)
    if fields.background and fields.stream:
        raise InvalidRequest(
            "a response in the background is not streamed: leave stream or background out", param="stream"
        )
    if fields.background and fields.store is False:
        raise InvalidRequest("a response in the background is kept: leave store out", param="store")
    if fields.truncation not in (None, "auto", "disabled"):
        raise InvalidRequest("truncation must be auto or disabled", param="truncation")
    if isinstance(fields.input, str):
        items = [user_message(fields.input)]
    else:
        items = checked_items([_resolved(each, at, references) for at, each in enumerate(fields.input)], "input")
    others = {name: value for name, value in body.items() if name not in _OWN}
    return Asked(fields, items, others, _ignored(fields, body, items))


def referred(fields: ResponseRequest) -> list[str]:
    """The ids of kept items that the input names in place of items, each as often as it is named. Raises
    `InvalidRequest` for an input of too many items."""
    given = fields.input if isinstance(fields.input, list) else []
    if len(given) > MAX_ITEMS:
        raise InvalidRequest(f"input has {len(given)} items, at most {MAX_ITEMS} are possible", param="input")
    return [name for each in given if each.get("type") == "item_reference" and isinstance(name := each.get("id"), str)]


def check_references(names: Sequence[str], references: Mapping[str, Item], most: int) -> None:
    """Refuse an input that would have more than ``most`` bytes with the items that it names: a short one can name a
    long item many times. Raises `PayloadTooLarge`."""
    sizes = {name: len(_encode(item)) for name, item in references.items()}
    if (total := sum(sizes.get(name, 0) for name in names)) > most:
        raise PayloadTooLarge(
            f"the items that input names have {total} bytes together, at most {most} are possible (max_body_bytes)"
        )


def hints_of(metadata: Object) -> Hints:
    """What of the metadata a strategy may use: what is short enough."""
    short = {
        name: value
        for name, value in metadata.items()
        if len(name) > 0 and name.isprintable() and len(value) <= MAX_HINT_CHARS and (not value or value.isprintable())
    }
    return checked_hints(short, "metadata")


def chat_body(asked: Asked, history: list[Item], model: str) -> Object:
    """The chat request for a response that goes on after ``history``. Raises `InvalidRequest` for tools and formats
    that no chat has."""
    fields = asked.fields
    messages = chat_messages(fields.instructions, [*history, *asked.items])
    if not messages:
        raise InvalidRequest("input is empty, and there is nothing before it", param="input")
    body: Object = {"model": model, "messages": messages}
    if fields.models is not None:
        body["models"] = fields.models
    if fields.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if fields.max_output_tokens is not None:
        body["max_completion_tokens"] = fields.max_output_tokens
    for name in _PASSED:
        if (value := getattr(fields, name)) is not None:
            body[name] = value
    if fields.service_tier is not None:
        body["service_tier"] = fields.service_tier
    if fields.reasoning is not None and fields.reasoning.effort is not None:
        body["reasoning_effort"] = fields.reasoning.effort
    if fields.text is not None:
        if fields.text.verbosity is not None:
            body["verbosity"] = fields.text.verbosity
        if (form := _response_format(fields.text.format)) is not None:
            body["response_format"] = form
    if LOGPROBS in (fields.include or ()):
        body["logprobs"] = True
        if fields.top_logprobs is not None:
            body["top_logprobs"] = fields.top_logprobs
    if fields.tools:
        body |= _tools(fields.tools, fields.tool_choice)
    elif isinstance(fields.tool_choice, dict) or fields.tool_choice == "required":
        raise InvalidRequest("tool_choice asks for a tool, and there are no tools", param="tool_choice")
    return body | asked.others


def _resolved(given: Object, at: int, references: Mapping[str, Item]) -> Object:
    if given.get("type") != "item_reference":
        return given
    name = given.get("id")
    found = references.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidRequest(
            f"input[{at}]: there is no item {str(name)[:128]!r} (any more): send the item itself",
            param=f"input[{at}].id",
            status=404,
            detail_code="item_not_found",
        )
    return found


def _ignored(fields: ResponseRequest, body: Mapping[str, Any], items: list[Item]) -> tuple[str, ...]:
    ignored = [name for name in IGNORED if body.get(name) is not None]
    if fields.truncation == "auto":
        ignored.append("truncation")
    if fields.reasoning is not None and (fields.reasoning.summary or fields.reasoning.generate_summary):
        ignored.append("reasoning.summary")
    if any(each not in (LOGPROBS, REASONING) for each in fields.include or ()):
        ignored.append("include")
    if fields.top_logprobs is not None and LOGPROBS not in (fields.include or ()):
        ignored.append("top_logprobs")
    if unread(items):
        ignored.append(ENCRYPTED)
    return tuple(ignored)


def _response_format(form: Object | None) -> Object | None:
    kind = (form or {}).get("type")
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind == "json_schema":
        for member, expected in (("name", str), ("schema", dict)):
            if not isinstance(form.get(member), expected):
                what = "a text" if expected is str else "an object"
                raise InvalidRequest(f"text.format.{member} must be {what}", param=f"text.format.{member}")
        return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}
    raise InvalidRequest(
        f"text.format.type must be text, json_object or json_schema, got {str(kind)[:64]!r}", param="text.format.type"
    )


def _tools(tools: list[Object], choice: str | Object | None) -> Object:
    functions: dict[str, Object] = {}
    for at, tool in enumerate(tools):
        kind = tool.get("type")
        if kind != "function":
            raise InvalidRequest(
                f"tools[{at}].type: {str(kind)[:64]!r} is not supported, no tools run here: offer functions, which the "
                "client runs",
                param=f"tools[{at}].type",
            )
        if not isinstance(tool.get("name"), str):
            raise InvalidRequest(f"tools[{at}].name must be a text", param=f"tools[{at}].name")
        members = {name: value for name, value in tool.items() if name != "type" and value is not None}
        functions[str(tool["name"])] = {"type": "function", "function": members}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        # The same for a model as being offered these alone.
        allowed = choice.get("tools")
        names = [_name(each, "tool_choice.tools", functions) for each in allowed] if isinstance(allowed, list) else []
        mode = choice.get("mode")
        if not names or mode not in ("auto", "required"):
            raise InvalidRequest("tool_choice must have tools, and the mode auto or required", param="tool_choice")
        return {"tools": [functions[name] for name in dict.fromkeys(names)], "tool_choice": mode}
    offered: Object = {"tools": list(functions.values())}
    if isinstance(choice, dict):
        return offered | {
            "tool_choice": {"type": "function", "function": {"name": _name(choice, "tool_choice", functions)}}
        }
    if choice not in (None, "none", "auto", "required"):
        raise InvalidRequest(f"tool_choice must be none, auto or required, got {choice[:64]!r}", param="tool_choice")
    return offered | ({"tool_choice": choice} if choice is not None else {})


def _name(given: object, param: str, functions: Mapping[str, Object]) -> str:
    """The name of a function among the tools."""
    name = given.get("name") if isinstance(given, dict) and given.get("type") == "function" else None
    if not isinstance(name, str) or name not in functions:
        raise InvalidRequest(f"{param} must name a function that is among the tools", param=param)
    return name
