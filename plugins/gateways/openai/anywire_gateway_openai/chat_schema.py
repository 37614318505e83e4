"""What a chat completion request must look like, as far as OpenAI defines it.

Only fields that OpenAI defines are here, each with its type and range; any other field passes to the engine
unseen. Decoding serves to check: what travels on is the client's text.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from anywire.demand import MAX_MODELS
from anywire.submission import MAX_NAME_CHARS

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_STOP_SEQUENCES = 16
"""OpenAI allows 4; every engine takes more."""

Name = Annotated[str, Meta(min_length=1)]
Object = dict[str, Raw]
Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Choices = Annotated[int, Meta(ge=1, le=128)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = str | Annotated[list[str], Meta(max_length=MAX_STOP_SEQUENCES)] | None
LogitBias = dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None
CacheKey = Annotated[str, Meta(max_length=MAX_NAME_CHARS)] | None
Models = Annotated[list[Name], Meta(max_length=MAX_MODELS)] | None
"""Further models that would do, after ``model`` and in order of preference; OpenAI has no such field."""
Metadata = Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)] | None


class ImageUrl(Struct, gc=False):
    url: Name
    detail: str | None = None


class InputAudio(Struct, gc=False):
    data: str
    format: str


class Part(Struct, gc=False):
    """One part of a message's content. Engines know more types than OpenAI: an unknown one passes."""

    type: Name
    text: str | None = None
    image_url: ImageUrl | None = None
    input_audio: InputAudio | None = None
    file: Object | None = None
    refusal: str | None = None

    def __post_init__(self) -> None:
        # A known part holds its content in the field of the same name.
        if self.type in _PART_FIELDS and getattr(self, self.type) is None:
            raise ValueError(f"`{self.type}` is required in a part of type {self.type!r}")


_PART_FIELDS = frozenset(Part.__struct_fields__) - {"type"}


class FunctionCall(Struct, gc=False):
    name: str
    arguments: str


class ToolCall(Struct, gc=False):
    type: Name = "function"
    id: str | None = None
    function: FunctionCall | None = None

    def __post_init__(self) -> None:
        if self.type == "function" and self.function is None:
            raise ValueError("`function` is required in a tool call of type 'function'")


class Message(Struct, gc=False):
    role: str
    content: str | Annotated[list[Part], Meta(min_length=1)] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    audio: Object | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"`role` must be one of {', '.join(ROLES)}, got {self.role[:64]!r}")
        if self.content is None and not (
            self.role == "function"
            or (self.role == "assistant" and (self.tool_calls or self.function_call or self.refusal or self.audio))
        ):
            or_calls = ", or the message must have tool_calls" if self.role == "assistant" else ""
            raise ValueError(f"`content` must be a string or a list of content parts{or_calls}")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("`tool_call_id` is required in a message of role 'tool'")


class ToolFunction(Struct, gc=False):
    name: Name
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Tool(Struct, gc=False):
    type: Name
    function: ToolFunction | None = None

    def __post_init__(self) -> None:
        if self.type == "function" and self.function is None:
            raise ValueError("`function` is required in a tool of type 'function'")


class NamedFunction(Struct, gc=False):
    name: Name


class ToolChoice(Struct, gc=False):
    type: Name
    function: NamedFunction | None = None

    def __post_init__(self) -> None:
        if self.type == "function" and self.function is None:
            raise ValueError("`function` is required in a tool_choice of type 'function'")


class JsonSchema(Struct, gc=False):
    name: Name
    schema: Object | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, gc=False):
    type: str
    json_schema: JsonSchema | None = None

    def __post_init__(self) -> None:
        if self.type not in ("text", "json_object", "json_schema"):
            raise ValueError(f"`type` must be one of text, json_object, json_schema, got {self.type[:64]!r}")
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("`json_schema` is required in a response_format of type 'json_schema'")


class StreamOptions(Struct, gc=False):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Struct, gc=False):
    model: Name
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Choices | None = None
    stop: Stop = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[ToolFunction] | None = None
    function_call: str | NamedFunction | None = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    audio: Object | None = None
    prediction: Object | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    metadata: Metadata = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: CacheKey = None
    models: Models = None

    def __post_init__(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` is only allowed when stream is true")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` is only allowed when logprobs is true")
        choice = self.tool_choice
        if choice is not None and choice != "none":
            if isinstance(choice, str) and choice not in ("auto", "required"):
                raise ValueError(f"`tool_choice` must be none, auto, required or an object, got {choice[:64]!r}")
            if choice != "auto" and not self.tools:
                raise ValueError("`tool_choice` asks for a tool, but there are no tools")


decoder = msgspec.json.Decoder(ChatRequest)
