"""What these answers look like, for the API's description. Members that an engine says besides may be there
everywhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class RankedDocument(Struct):
    """``document`` is there where it was asked for."""

    index: int
    relevance_score: float
    document: Any = UNSET


class Reranked(Struct):
    id: str
    object: Literal["list"]
    model: str
    results: list[RankedDocument]
    usage: dict[str, Any] | UnsetType = UNSET


class Tokenized(Struct):
    """vLLM's members; a request in llama.cpp's form gets ``tokens`` alone, with their pieces where they were asked
    for."""

    tokens: list[Any]
    count: int | UnsetType = UNSET
    max_model_len: int | UnsetType | None = UNSET
    token_strs: list[str] | UnsetType | None = UNSET


class Detokenized(Struct):
    prompt: str
    content: str


class TranscriptionForm(Struct):
    """Other members of OpenAI's API pass to the engine."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    model: str | UnsetType = UNSET
    language: str | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    response_format: str | UnsetType = UNSET
    temperature: float | UnsetType = UNSET


class Transcribed(Struct):
    text: str
    usage: dict[str, Any] | UnsetType = UNSET


class Drawn(Struct):
    data: list[dict[str, Any]]
    created: int | UnsetType = UNSET
    usage: dict[str, Any] | UnsetType = UNSET
