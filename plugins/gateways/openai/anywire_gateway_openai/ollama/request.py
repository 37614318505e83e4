"""What requests of Ollama's API must look like, and the task that an engine gets for each: pure functions.

What an engine has no way to do is refused by name where the answer would be another one, and else told in
``x-anywire-ignored``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from anywire.errors import InvalidRequest
from anywire.messages import Kind
from anywire_gateway_openai.ollama.messages import Message, Object, chat_messages, prompt_message

Think = bool | str | None
KeepAlive = int | float | str | None
MAX_IGNORED = 32
"""Members without effect that an answer names."""
MAX_NAME_CHARS = 64

_Options = dict[str, Any] | None
_Name = Annotated[str, Meta(max_length=256)]


class ChatRequest(Struct):
    model: _Name = ""
    messages: list[Message] = []
    stream: bool | None = None
    tools: list[Object] | None = None
    format: Raw = Raw(b"null")
    options: _Options = None
    think: Think = None
    keep_alive: KeepAlive = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    template: str | None = None


class GenerateRequest(Struct):
    model: _Name = ""
    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    images: list[str] | None = None
    raw: bool | None = None
    stream: bool | None = None
    format: Raw = Raw(b"null")
    options: _Options = None
    think: Think = None
    keep_alive: KeepAlive = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    template: str | None = None
    context: list[int] | None = None


class EmbedRequest(Struct):
    model: _Name = ""
    input: str | list[str] = ""
    dimensions: int | None = None
    truncate: bool | None = None
    options: _Options = None
    keep_alive: KeepAlive = None


class EmbeddingsRequest(Struct):
    model: _Name = ""
    prompt: str = ""
    options: _Options = None
    keep_alive: KeepAlive = None


chat_decoder = msgspec.json.Decoder(ChatRequest)
generate_decoder = msgspec.json.Decoder(GenerateRequest)
embed_decoder = msgspec.json.Decoder(EmbedRequest)
embeddings_decoder = msgspec.json.Decoder(EmbeddingsRequest)
_any = msgspec.json.Decoder().decode

_NUMBERS = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "presence_penalty", "frequency_penalty"),
    *("repeat_penalty", "repeat_last_n", "mirostat", "mirostat_tau", "mirostat_eta"),
)
"""Options that OpenAI's API or llama.cpp's server has under the same name."""
_VLLM = {"repeat_penalty": "repetition_penalty"}
"""What vLLM calls them."""


class Asked(NamedTuple):
    """The task for a request, without its model, and the members of the request that have no effect on it."""

    kind: Kind
    body: Object
    ignored: tuple[str, ...]


def asked_chat(fields: ChatRequest, members: Iterable[str]) -> Asked:
    """The chat for a request whose members have these names. Raises `InvalidRequest` that names the member at
    fault."""
    body: Object = {"messages": chat_messages(fields.messages)}
    if fields.tools:
        body["tools"] = fields.tools
    ignored = _common(fields, body)
    return Asked("chat", body, _ignored(ChatRequest, members, fields.keep_alive, ignored))


def asked_generate(fields: GenerateRequest, members: Iterable[str]) -> Asked:
    """The task for a request to go on from a prompt: a chat of one message, since a model's template is to be applied;
    a completion where it is not (``raw``), or where the middle of a text is wanted (``suffix``). Raises as
    `asked_chat`."""
    if fields.context:
        raise InvalidRequest(
            "context: what was said before is not kept as tokens here: send it as messages to /api/chat",
            param="context",
        )
    body: Object
    kind: Kind
    if fields.raw or fields.suffix:
        for name in ("system", "images") if fields.raw else ("images",):
            if getattr(fields, name):
                raise InvalidRequest(f"{name} cannot be combined with raw or suffix", param=name)
        prompt = f"{fields.system}\n\n{fields.prompt}" if fields.system else fields.prompt
        kind, body = "completion", {"prompt": prompt}
        if fields.suffix:
            body["suffix"] = fields.suffix
    else:
        system = [{"role": "system", "content": fields.system}] if fields.system else []
        kind, body = "chat", {"messages": [*system, prompt_message(fields.prompt, fields.images)]}
    ignored = _common(fields, body, is_chat=kind == "chat")
    return Asked(kind, body, _ignored(GenerateRequest, members, fields.keep_alive, ignored))


def asked_embed(fields: EmbedRequest, members: Iterable[str]) -> Asked:
    """The embeddings of one text or several. Raises as `asked_chat`."""
    if isinstance(fields.input, list) and not fields.input:
        raise InvalidRequest("input must be a text or a list of texts", param="input")
    body: Object = {"input": fields.input, "encoding_format": "float"}
    if fields.dimensions is not None:
        body["dimensions"] = fields.dimensions
    ignored = [f"options.{name}" for name in fields.options or ()]
    if fields.truncate is not None:
        ignored.append("truncate")
    return Asked("embedding", body, _ignored(EmbedRequest, members, fields.keep_alive, ignored))


def asked_embeddings(fields: EmbeddingsRequest, members: Iterable[str]) -> Asked:
    """The embedding of one text."""
    ignored = [f"options.{name}" for name in fields.options or ()]
    body: Object = {"input": fields.prompt, "encoding_format": "float"}
    return Asked("embedding", body, _ignored(EmbeddingsRequest, members, fields.keep_alive, ignored))


def unloads(keep_alive: KeepAlive) -> bool:
    """Whether a model is to be unloaded at once."""
    if isinstance(keep_alive, str):
        return keep_alive.strip().rstrip("nuµmsh") == "0"
    return keep_alive == 0 and keep_alive is not None


def _common(fields: ChatRequest | GenerateRequest, body: Object, *, is_chat: bool = True) -> list[str]:
    """Put what both requests have into ``body``; return the members without effect."""
    if fields.template:
        raise InvalidRequest(
            "template: a model's template is its engine's: set chat_template there, or send raw", param="template"
        )
    ignored = _sample(fields.options or {}, body)
    response_format = _format(fields.format)
    if response_format is not None:
        body["response_format"] = response_format
    if is_chat:
        _think(fields.think, body)
    elif fields.think is not None:
        ignored.append("think")
    if fields.logprobs or fields.top_logprobs:
        if is_chat:
            body["logprobs"] = True
            if fields.top_logprobs:
                body["top_logprobs"] = fields.top_logprobs
        else:
            body["logprobs"] = fields.top_logprobs or 1
    return ignored


def _sample(options: Mapping[str, Any], body: Object) -> list[str]:
    ignored = []
    for name, value in options.items():
        if value is None:
            continue
        if name in _NUMBERS:
            body[name] = _number(name, value)
            if name in _VLLM:
                body[_VLLM[name]] = body[name]
        elif name == "num_predict":
            limit = _number(name, value)
            if limit > 0:  # other values stand for none
                body["max_tokens"] = limit
        elif name == "stop":
            body["stop"] = _stops(value)
        else:
            ignored.append(f"options.{name}")
    return ignored


def _number(name: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"options.{name} must be a number", param=f"options.{name}")
    return int(value) if isinstance(value, float) and name in ("num_predict", "seed", "top_k") else value


def _stops(value: object) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise InvalidRequest("options.stop must be a text or a list of texts", param="options.stop")
    return stops


def _format(given: Raw) -> Object | None:
    value = _any(given)
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if isinstance(value, dict):
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}
    raise InvalidRequest('format must be "json" or a JSON schema', param="format")


def _think(think: Think, body: Object) -> None:
    """There is no standard for it: templates have a switch, and some models take an effort."""
    if think is None:
        return
    if isinstance(think, str):
        if not think:
            return
        body["reasoning_effort"] = think
    body["chat_template_kwargs"] = {"enable_thinking": bool(think)}


def _ignored(
    form: type[Struct], members: Iterable[str], keep_alive: KeepAlive, ignored: Iterable[str]
) -> tuple[str, ...]:
    """The names of what has no effect, as a header can hold them."""
    unknown = [name for name in members if name not in form.__struct_fields__]
    named = [*(["keep_alive"] if keep_alive is not None else []), *ignored, *unknown]
    fit = [name for name in named if name.isascii() and name.isprintable() and len(name) <= MAX_NAME_CHARS]
    return tuple(fit[:MAX_IGNORED])
