"""What completion and embedding requests must look like; see `chat_schema`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from anywire_gateway_openai.chat_schema import Models, Number, StreamOptions

Text = Annotated[Raw, Meta(extra_json_schema={"type": ["string", "array"]})]
"""A text, several, or tokens."""


class CompletionRequest(Struct, gc=False):
    prompt: Text
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    n: Number | None = None
    best_of: Number | None = None
    stop: str | list[str] | None = None
    seed: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    logprobs: bool | Number | None = None
    models: Models = None

    def __post_init__(self) -> None:
        if bytes(memoryview(self.prompt)[:1]) not in (b'"', b"["):
            raise ValueError("`prompt` must be a string, or a list of strings, of tokens or of lists of tokens")


class EmbeddingRequest(Struct, gc=False):
    input: Text
    model: str | None = None
    encoding_format: str | None = None
    dimensions: Number | None = None
    models: Models = None


completion_decoder = msgspec.json.Decoder(CompletionRequest)
embedding_decoder = msgspec.json.Decoder(EmbeddingRequest)
