"""What a chat completion request must look like.

Only members are here that OpenAI defines and that nobody takes in another form, each with its type alone: which values
do is the engine's to say, since engines know more of them than OpenAI. Any other member passes to the engine unseen.
Decoding serves to check: what travels on is the client's text.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct, field

from anywire.demand import MAX_MODELS

Name = Annotated[str, Meta(min_length=1)]
Object = dict[str, Raw]
Number = int | float
"""Engines differ in ranges, and take ``5.0`` for an integer."""
Models = Annotated[list[Name], Meta(max_length=MAX_MODELS)] | None
"""Further models that would do, after ``model`` and in order of preference; OpenAI has no such field."""

_STRING_LIST_OR_NULL = frozenset((b'"', b"[", b"n"))
"""What the JSON of a content begins with."""


def _null() -> Raw:
    return Raw(b"null")


class Message(Struct, gc=False):
    role: Name
    content: Annotated[Raw, Meta(extra_json_schema={"type": ["string", "array", "null"]})] = field(
        default_factory=_null
    )
    tool_calls: list[Object] | None = None

    def __post_init__(self) -> None:
        if bytes(memoryview(self.content)[:1]) not in _STRING_LIST_OR_NULL:
            raise ValueError("`content` must be a string or a list of content parts")


class StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class ChatRequest(Struct, gc=False):
    messages: list[Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Number | None = None
    max_completion_tokens: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    n: Number | None = None
    stop: str | list[str] | None = None
    seed: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    logprobs: bool | Number | None = None
    top_logprobs: Number | None = None
    tools: list[Object] | None = None
    tool_choice: str | Object | None = None
    response_format: Object | None = None
    models: Models = None
    anywire_api: None = None
    """Names the API that a body is of, where a gateway has left it in another one (`anywire.native_api`)."""


class StreamedChatRequest(ChatRequest):
    """A chat request where the way it came by asks for a stream already."""

    stream: bool | None = True


decoder = msgspec.json.Decoder(ChatRequest)
streamed_decoder = msgspec.json.Decoder(StreamedChatRequest)
