"""What completion and embedding requests must look like, as far as OpenAI defines it; see `chat_schema`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from anywire_gateway_openai.chat_schema import (
    Choices,
    LogitBias,
    Models,
    Name,
    Penalty,
    Probability,
    Seed,
    Stop,
    StreamOptions,
    Temperature,
)

Token = Annotated[int, Meta(ge=0, le=2**31 - 1)]
MAX_INPUTS = 2048
"""How many texts one request may hold; OpenAI's limit."""
Input = str | Annotated[list[str | Token | list[Token]], Meta(min_length=1, max_length=MAX_INPUTS)]
TokenizedInput = Annotated[list[Token], Meta(min_length=1)]


def _check_input(field: str, value: str | list[str | int | list[int]]) -> None:
    """A text, several texts, one text as tokens, or several as tokens: never a mixture."""
    if isinstance(value, str):
        return
    kinds = {type(each) for each in value}
    if len(kinds) > 1:
        raise ValueError(f"`{field}` must be a string, or a list of either strings, tokens or lists of tokens")
    if kinds == {list} and not all(value):
        raise ValueError(f"`{field}` must not hold an empty list of tokens")


class CompletionRequest(Struct, gc=False):
    model: Name
    prompt: str | Annotated[list[str | Token | list[Token]], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Choices | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: Stop = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    user: str | None = None
    models: Models = None

    def __post_init__(self) -> None:
        _check_input("prompt", self.prompt)
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` is only allowed when stream is true")
        if self.best_of is not None:
            if self.best_of < (self.n or 1):
                raise ValueError(f"`best_of` must be at least n ({self.n or 1}), got {self.best_of}")
            if self.stream and self.best_of > 1:
                raise ValueError("`best_of` above 1 is not allowed when stream is true")


class EmbeddingRequest(Struct, gc=False):
    model: Name
    input: Input
    encoding_format: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    user: str | None = None
    models: Models = None

    def __post_init__(self) -> None:
        _check_input("input", self.input)
        if self.input == "" or (isinstance(self.input, list) and "" in self.input):
            raise ValueError("`input` must not be an empty string")
        if self.encoding_format not in (None, "float", "base64"):
            raise ValueError(f"`encoding_format` must be float or base64, got {self.encoding_format[:64]!r}")


completion_decoder = msgspec.json.Decoder(CompletionRequest)
embedding_decoder = msgspec.json.Decoder(EmbeddingRequest)
