"""What answers of Ollama's API look like, for the API's description. Members that an engine, or a newer version, says
besides may be there everywhere."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType


class OllamaError(Struct):
    """Why there is no answer, or why a stream ends."""

    error: str


class Ending(Struct):
    """Of a whole answer, and of the last line of a stream: tokens, and times in nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: str | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    logprobs: list[dict[str, Any]] | UnsetType = UNSET


class OllamaMessage(Struct):
    """``tool_calls`` have their arguments as objects."""

    role: str
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class OllamaChat(Ending, kw_only=True):
    """A whole chat, or a line of a streamed one."""

    message: OllamaMessage


class Generated(Ending, kw_only=True):
    """A whole answer to a prompt, or a line of a streamed one."""

    response: str
    thinking: str | UnsetType = UNSET


class Embedded(Struct):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OneEmbedding(Struct):
    embedding: list[float]


class OllamaVersion(Struct):
    """``version`` is that of the API, ``anywire`` that of this server."""

    version: str
    anywire: str


class ListedModel(Struct):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: dict[str, Any]


class LoadedModel(ListedModel):
    expires_at: str
    size_vram: int
    context_length: int


class ListedModels(Struct):
    models: list[ListedModel]


class LoadedModels(Struct):
    models: list[LoadedModel]


class ShownModel(Struct):
    modelfile: str
    parameters: str
    template: str
    license: str
    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class Done(Struct):
    status: str
