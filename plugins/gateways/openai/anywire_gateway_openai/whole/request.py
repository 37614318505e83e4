"""What these requests must look like, and the body that an engine gets for each (`anywire.engine`): pure functions.

Members that are not named here pass to the engine as they are.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from anywire.errors import InvalidRequest
from anywire_gateway_openai.chat_schema import Models, Number
from anywire_gateway_openai.whole.form_data import FormFile

Object = dict[str, Any]


class RerankRequest(Struct):
    query: str
    documents: list[Raw]
    model: str | None = None
    top_n: Number | None = None
    return_documents: bool | None = None
    models: Models = None


class TokenizeRequest(Struct):
    """vLLM's members, and llama.cpp's: ``content``, ``add_special``, ``with_pieces``."""

    prompt: str | UnsetType = UNSET
    messages: list[Object] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    model: str | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_special: bool | None = None
    with_pieces: bool | None = None
    models: Models = None

    @property
    def is_llama_cpps(self) -> bool:
        return self.content is not UNSET and self.prompt is UNSET and self.messages is UNSET


class DetokenizeRequest(Struct):
    tokens: list[int]
    model: str | None = None
    models: Models = None


class SpeechRequest(Struct):
    input: str
    model: str | None = None
    models: Models = None


class ImageRequest(Struct):
    prompt: str
    model: str | None = None
    stream: bool | None = None
    models: Models = None


rerank_decoder = msgspec.json.Decoder(RerankRequest)
tokenize_decoder = msgspec.json.Decoder(TokenizeRequest)
detokenize_decoder = msgspec.json.Decoder(DetokenizeRequest)
speech_decoder = msgspec.json.Decoder(SpeechRequest)
image_decoder = msgspec.json.Decoder(ImageRequest)


class Asked(NamedTuple):
    """The model that a request names, and the body for the engine without it."""

    model: str | None
    body: Object


def asked_rerank(fields: RerankRequest, members: Mapping[str, Any]) -> Asked:
    """Raises `InvalidRequest` that names the member at fault, as all of these do."""
    if not fields.documents:
        raise InvalidRequest("documents must be a list of at least 1 text", param="documents")
    if fields.top_n is not None and fields.top_n < 1:
        raise InvalidRequest("top_n must be at least 1", param="top_n")
    body = {name: value for name, value in members.items() if name != "return_documents"}
    return Asked(fields.model, body)


def asked_tokenize(fields: TokenizeRequest, members: Mapping[str, Any]) -> Asked:
    """llama.cpp's server adds no special tokens unless it is asked to, vLLM's does."""
    text = fields.prompt if fields.prompt is not UNSET else fields.content
    if (text is UNSET) == (fields.messages is UNSET):
        raise InvalidRequest("send either prompt (or content), a text, or messages, those of a chat", param="prompt")
    body = {name: value for name, value in members.items() if name not in ("content", "add_special", "with_pieces")}
    adds = fields.add_special if fields.add_special_tokens is None else fields.add_special_tokens
    if text is not UNSET:
        body["prompt"] = text
        body["add_special_tokens"] = not fields.is_llama_cpps if adds is None else adds
    if fields.return_token_strs or fields.with_pieces:
        body["return_token_strs"] = True
    return Asked(fields.model, body)


def asked_image(fields: ImageRequest, members: Mapping[str, Any]) -> Asked:
    if fields.stream:
        raise InvalidRequest("stream: images are given whole here: leave it out", param="stream")
    return Asked(fields.model, dict(members))


def asked_transcription(fields: Mapping[str, list[str | FormFile]]) -> Asked:
    """The task for a form with a file."""
    files = fields.get("file", [])
    file = files[0] if len(files) == 1 else None
    if not isinstance(file, FormFile):
        raise InvalidRequest("file must be one file, sent as multipart/form-data", param="file")
    body: Object = {
        "file": base64.b64encode(file.data).decode(),
        "filename": file.name,
        "content_type": file.content_type,
    }
    for name, values in fields.items():
        if name == "file":
            continue
        if any(isinstance(each, FormFile) for each in values):
            raise InvalidRequest(f"{name[:64]} must be a text, not a file", param=name[:64])
        body[name] = values if name.endswith("[]") else values[-1]
    if str(body.get("stream", "")).lower() in ("true", "1"):
        raise InvalidRequest("stream: transcriptions are given whole here: leave it out", param="stream")
    model = body.get("model")
    return Asked(model if isinstance(model, str) else None, body)
