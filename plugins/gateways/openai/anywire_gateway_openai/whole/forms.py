"""What these endpoints take and give, for the API's description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from anywire_gateway_openai.openapi.form import Form
from anywire_gateway_openai.whole.request import (
    DetokenizeRequest,
    ImageRequest,
    RerankRequest,
    SpeechRequest,
    TokenizeRequest,
)

Object = dict[str, Any]


class RerankResult(Struct):
    """``index`` is the document's place in the request."""

    index: int
    relevance_score: float
    document: Any = UNSET


class Reranked(Struct):
    """The best document first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: Object | UnsetType = UNSET


class Tokenized(Struct):
    """vLLM's form."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None


class Token(Struct):
    id: int
    piece: str


class TokenList(Struct):
    """llama.cpp's form."""

    tokens: list[int | Token]


class Detokenized(Struct):
    """The text, under vLLM's name and under llama.cpp's."""

    prompt: str
    content: str


class TranscriptionRequest(Struct):
    """A form. Other fields pass to the engine."""

    file: Annotated[str, Meta(extra_json_schema={"contentMediaType": "application/octet-stream"})]
    model: str | UnsetType = UNSET


class Transcription(Struct):
    text: str


class Images(Struct):
    data: list[Any]


RERANK = Form(takes=RerankRequest, gives=Reranked, is_task=True)
TOKENIZE = Form(takes=TokenizeRequest, gives=(Tokenized, TokenList), is_task=True)
DETOKENIZE = Form(takes=DetokenizeRequest, gives=Detokenized, is_task=True)
TRANSCRIPTION = Form(
    takes=TranscriptionRequest,
    takes_as="multipart/form-data",
    gives=Transcription,
    others=("text/plain", "text/vtt", "text/srt", "application/x-subrip"),
    is_task=True,
)
SPEECH = Form(takes=SpeechRequest, others=("audio/*", "application/octet-stream", "text/event-stream"), is_task=True)
IMAGE = Form(takes=ImageRequest, gives=Images, is_task=True)
