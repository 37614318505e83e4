"""What the endpoints of Ollama's API take and give, for the API's description."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from anywire_gateway_openai.ollama.request import ChatRequest, EmbeddingsRequest, EmbedRequest, GenerateRequest
from anywire_gateway_openai.openapi.form import Form

Object = dict[str, Any]


class Ending(Struct):
    """An answer, or a piece of one; the last has ``done``, and tells tokens and times in nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: str | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[Object] | UnsetType = UNSET


class ChatLine(Ending, kw_only=True):
    """A chat's answer, or a piece of one."""

    message: Object


class GeneratedLine(Ending, kw_only=True):
    """The answer to a prompt, or a piece of one."""

    response: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[Object] | UnsetType = UNSET


class EmbedAnswer(Struct):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingAnswer(Struct):
    embedding: list[float]


class ListedModel(Struct):
    """A model. ``expires_at``, ``size_vram`` and ``context_length`` are told of those that are loaded."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Object
    expires_at: str | UnsetType = UNSET
    size_vram: int | UnsetType = UNSET
    context_length: int | UnsetType = UNSET


class ListedModels(Struct):
    models: list[ListedModel]


class ShownModel(Struct):
    modelfile: str
    parameters: str
    template: str
    license: str
    details: Object
    model_info: Object
    capabilities: list[str]
    modified_at: str


class ApiVersion(Struct):
    """``version`` is that of Ollama whose API this is, ``anywire`` the server's own."""

    version: str
    anywire: str


class ModelName(Struct):
    """``name`` is what older clients call ``model``."""

    model: str = ""
    name: str = ""


class Pulled(Struct):
    status: str


CHAT = Form(takes=ChatRequest, gives=ChatLine, lines=ChatLine, is_task=True)
GENERATE = Form(takes=GenerateRequest, gives=GeneratedLine, lines=GeneratedLine, is_task=True)
EMBED = Form(takes=EmbedRequest, gives=EmbedAnswer, is_task=True)
EMBEDDINGS = Form(takes=EmbeddingsRequest, gives=EmbeddingAnswer, is_task=True)
LISTED = Form(gives=ListedModels)
VERSION = Form(gives=ApiVersion)
SHOW = Form(takes=ModelName, gives=ShownModel, errors=(404,))
PULL = Form(takes=ModelName, gives=Pulled)
REFUSED = Form(status=0)
