"""What a request asks of the synthetic engine: which members it honours, and which it refuses by name."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

from anywire.errors import InvalidRequest
from anywire.messages import Kind

MAX_ANSWER_CHARS = 4_000_000
"""Characters, about, of an answer that is more than plain text: each of its choices may be much longer than what asks
for it."""
MAX_STOPS = 256
"""Texts that may end a choice."""
MAX_CHOICES = 1024
"""Prompts times choices of one request."""
_TEXT_FORMATS = (None, "text")


class Message(msgspec.Struct):
    content: Any = None
    role: str = ""


class Function(msgspec.Struct):
    name: str
    parameters: Any = None


class Tool(msgspec.Struct):
    type: str = "function"
    function: Function | None = None


class JsonSchema(msgspec.Struct):
    schema: Any = None


class ResponseFormat(msgspec.Struct):
    type: str | None = None
    json_schema: JsonSchema | None = None


class Body(msgspec.Struct):
    """The members that the engine reads. Those that only steer how a model chooses (``temperature``, ``logit_bias`` …)
    mean nothing here: the text depends on prompt and seed."""

    messages: list[Message] = []
    prompt: Any = ""
    input: Any = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None
    response_format: ResponseFormat | None = None
    echo: bool | None = None
    dimensions: int | None = None
    encoding_format: str | None = None
    functions: Any = None
    suffix: Any = None
    modalities: list[str] | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of the longest answer; None when any length will do, which clients also write as -1."""
        given = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return None if given is None or given < 0 else given

    @property
    def plain(self) -> bool:
        """Whether the answer is the text of one choice and nothing else."""
        return (
            not self.tools
            and (self.logprobs is None or self.logprobs is False)
            and (self.response_format is None or self.response_format.type in _TEXT_FORMATS)
            and (self.n is None or self.n == 1)
            and not (self.echo or self.functions or self.suffix)
            and (self.modalities is None or self.modalities == ["text"])
            and not (type(self.prompt) is list and self.prompt and type(self.prompt[0]) is not int)
        )


_decode = msgspec.json.Decoder(Body).decode
_decode_leniently = msgspec.json.Decoder(Body, strict=False).decode


def decode_body(text: str) -> Body:
    """Takes ``5.0`` for an integer, as other engines do. Raises `msgspec.DecodeError`."""
    try:
        return _decode(text)
    except msgspec.ValidationError:
        return _decode_leniently(text)


class Asked(NamedTuple):
    """Of an answer that is more than plain text: its prompts, the choices for each, and the form of them. ``tools`` are
    those one of which may be called, ``forced`` whether one must be, ``schema`` what a JSON answer must be like.
    ``top_logprobs`` is None when no log probabilities are asked for."""

    prompts: list[str]
    choices: int
    tools: list[Function]
    forced: bool
    schema: Any
    is_json: bool
    top_logprobs: int | None
    echo: bool


def asked(kind: Kind, body: Body) -> Asked:
    """Raises `InvalidRequest` that names the member which is not supported, or not with another one."""
    for name in ("functions", "suffix"):
        if getattr(body, name) not in (None, [], ""):
            raise _refused(name, "use tools" if name == "functions" else "it writes no middle of a text")
    if body.modalities is not None and set(body.modalities) - {"text"}:
        raise _refused("modalities", "it answers with text")
    prompts = prompts_of(kind, body)
    choices = 1 if body.n is None else body.n
    if choices < 1:
        raise InvalidRequest("n must be at least 1", param="n")
    if len(prompts) * choices > MAX_CHOICES:
        raise InvalidRequest(
            f"the synthetic engine gives at most {MAX_CHOICES} choices in all, n for each prompt", param="n"
        )
    tools, forced = _tools(body)
    is_json, schema = _format(body)
    echo = bool(body.echo) and kind == "completion"
    if echo and not (isinstance(body.prompt, str) or all(isinstance(each, str) for each in body.prompt)):
        raise _refused("echo", "it cannot show tokens as text")
    if echo and choices * sum(map(len, prompts)) > MAX_ANSWER_CHARS:
        raise too_long("echo")
    return Asked(prompts, choices, tools, forced, schema, is_json, _top_logprobs(kind, body), echo)


def too_long(member: str) -> InvalidRequest:
    return InvalidRequest(
        f"the synthetic engine gives answers of at most about {MAX_ANSWER_CHARS} characters", param=member
    )


def prompt_text(kind: Kind, body: Body) -> str:
    """The prompt of a request that has one."""
    if kind == "chat":
        return "\n".join(
            each.content if isinstance(each.content, str) else json.dumps(each.content) for each in body.messages
        )
    if kind == "completion":
        return body.prompt if isinstance(body.prompt, str) else json.dumps(body.prompt)
    return ""


def prompts_of(kind: Kind, body: Body) -> list[str]:
    """A list of texts, or of lists of tokens, is as many prompts; one list of tokens is one."""
    given = body.prompt
    if kind != "completion" or not isinstance(given, list) or not given or type(given[0]) is int:
        return [prompt_text(kind, body)]
    return [each if isinstance(each, str) else json.dumps(each) for each in given]


def inputs_of(body: Body) -> list[Any]:
    """What to embed, one each. Raises `InvalidRequest` for what is nothing, and for a form of vector that is not
    known."""
    given = body.input
    if given is None or given == [] or not isinstance(given, str | list):
        raise InvalidRequest("input must be a text, or a list of texts, of tokens or of lists of tokens", param="input")
    if body.encoding_format not in (None, "float", "base64"):
        raise _refused(f"encoding_format {body.encoding_format[:40]!r}", "it knows float and base64", "encoding_format")
    if body.dimensions is not None and body.dimensions < 1:
        raise InvalidRequest("dimensions must be at least 1", param="dimensions")
    return given if isinstance(given, list) and not isinstance(given[0], int) else [given]


def last_user_text(body: Body) -> str:
    """The text of the last message when a user says it, else nothing."""
    last = body.messages[-1] if body.messages else None
    if last is None or last.role != "user":
        return ""
    return last.content if isinstance(last.content, str) else json.dumps(last.content)


def stop_texts(body: Body) -> list[str]:
    """Raises `InvalidRequest` for more than `MAX_STOPS`."""
    stop = body.stop
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        raise InvalidRequest(f"the synthetic engine looks for at most {MAX_STOPS} texts", param="stop")
    return [each for each in ([stop] if isinstance(stop, str) else stop or []) if each]


def _refused(what: str, why: str, param: str = "") -> InvalidRequest:
    return InvalidRequest(f"the synthetic engine does not support {what}: {why}", param=param or what)


def _tools(body: Body) -> tuple[list[Function], bool]:
    functions = [each.function for each in body.tools or () if each.type == "function" and each.function is not None]
    choice = body.tool_choice
    if choice == "none" or not body.tools:
        return [], False
    if isinstance(choice, dict):
        named = choice.get("function")
        name = named.get("name") if isinstance(named, dict) else None
        found = [each for each in functions if each.name == name]
        if choice.get("type") != "function" or not found:
            raise InvalidRequest("tool_choice must name a function that is among the tools", param="tool_choice")
        return found[:1], True
    if choice not in (None, "auto", "required"):
        raise InvalidRequest("tool_choice must be none, auto, required or name a function", param="tool_choice")
    if choice == "required" and not functions:
        raise _refused("tool_choice", "none of the tools is a function")
    return functions, choice == "required"


def _format(body: Body) -> tuple[bool, Any]:
    wanted = body.response_format
    if wanted is None or wanted.type in _TEXT_FORMATS:
        return False, None
    if wanted.type == "json_object":
        return True, {"type": "object", "properties": {"text": {"type": "string"}}}
    if wanted.type == "json_schema":
        schema = wanted.json_schema.schema if wanted.json_schema is not None else None
        return True, {"type": "object"} if schema is None else schema
    raise _refused(f"response_format of type {wanted.type[:40]!r}", "it knows text and JSON", "response_format.type")


def _top_logprobs(kind: Kind, body: Body) -> int | None:
    if kind == "completion":
        return None if body.logprobs is None or body.logprobs is False else int(body.logprobs)
    return (body.top_logprobs or 0) if body.logprobs else None
