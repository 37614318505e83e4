"""Requests whose answer is one JSON object, as servers take them: rerank, tokens, sound, images."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from anywire.errors import InvalidRequest
from anywire.messages import TaskRequest
from anywire_engine_openai.requests import members

JSON = "application/json"
_BELOW_V1 = {
    "rerank": "/rerank",
    "speech": "/audio/speech",
    "transcription": "/audio/transcriptions",
    "image": "/images/generations",
}
"""Tokens are below the root of a server: llama.cpp's and vLLM's have them there."""
_OF_THE_FILE = ("file", "filename", "content_type")

_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder().decode


class Sent(NamedTuple):
    """``content_type`` of ``body``, and where it is posted."""

    url: str
    body: bytes
    content_type: str


def whole_request(task: TaskRequest, model: str, base_url: str) -> Sent:
    """What to send to the server at ``base_url`` (with ``/v1``), which calls the model ``model``. Raises
    `InvalidRequest`."""
    content = members(task.body)
    content.pop("models", None)
    content["model"] = msgspec.Raw(_encode(model))
    if task.kind == "transcription":
        boundary = secrets.token_hex(16)
        body = _form({name: _any(value) for name, value in content.items()}, boundary)
        return Sent(base_url + _BELOW_V1[task.kind], body, f"multipart/form-data; boundary={boundary}")
    if task.kind in _BELOW_V1:
        if task.kind == "rerank":
            content = _with_texts(content)
        return Sent(base_url + _BELOW_V1[task.kind], _encode(content), JSON)
    root = base_url.removesuffix("/v1")
    if task.kind == "tokenize":
        content = _in_both_forms(content)
    return Sent(f"{root}/{task.kind}", _encode(content), JSON)


def templated(task: TaskRequest, prompt: str) -> TaskRequest:
    """A task to count the tokens of a chat, once ``prompt`` is known, which the model's template makes of it."""
    content = members(task.body)
    for name in ("messages", "tools"):
        content.pop(name, None)
    body = _encode({**content, "prompt": prompt, "add_special_tokens": True})
    return msgspec.structs.replace(task, body=body.decode())


def is_chat(task: TaskRequest) -> bool:
    """Whether the tokens of a chat are asked for, and not those of a text."""
    return task.kind == "tokenize" and "messages" in members(task.body)


def _in_both_forms(content: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """llama.cpp reads ``content``, ``add_special`` and ``with_pieces``, vLLM the others."""
    sent = dict(content)
    if "prompt" in content:
        sent["content"] = content["prompt"]
        sent["add_special"] = sent["add_special_tokens"] = content.get("add_special_tokens", msgspec.Raw(b"true"))
    if "return_token_strs" in content:
        sent["with_pieces"] = content["return_token_strs"]
    return sent


def _with_texts(content: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Documents that are objects with nothing but a text become that text, as every server takes it."""
    if b"{" not in bytes(content.get("documents", b"")):
        return dict(content)
    documents = _any(content["documents"])
    if isinstance(documents, list):
        documents = [each["text"] if isinstance(each, dict) and each.keys() == {"text"} else each for each in documents]
    return {**content, "documents": msgspec.Raw(_encode(documents))}


def _form(content: Mapping[str, Any], boundary: str) -> bytes:
    """A form with the file and the other members. Raises `InvalidRequest`."""
    file, name = content.get("file"), content.get("filename") or "audio.wav"
    if not isinstance(file, str) or not isinstance(name, str):
        raise InvalidRequest("file must be a text in base64, and filename a text", param="file", status=400)
    try:
        sound = base64.b64decode(file, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"file must be base64: {error}", param="file", status=400) from error
    kind = str(content.get("content_type") or "application/octet-stream")
    parts = [_part(boundary, "file", sound, f'; filename="{_quoted(name)}"\r\nContent-Type: {_quoted(kind)}')]
    for member, value in content.items():
        if member in _OF_THE_FILE or value is None:
            continue
        # A form says that a member is a list by its name.
        is_list = isinstance(value, list)
        for each in value if is_list else [value]:
            field = member if member.endswith("[]") or not is_list else f"{member}[]"
            parts.append(_part(boundary, field, _field(each)))
    return b"".join((*parts, f"--{boundary}--\r\n".encode()))


def _field(value: object) -> bytes:
    return value.encode(errors="replace") if isinstance(value, str) else _encode(value)


def _part(boundary: str, name: str, data: bytes, more: str = "") -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"{more}\r\n\r\n'
    return head.encode(errors="replace") + data + b"\r\n"


def _quoted(text: str) -> str:
    """``text`` without what would end it in the head of a part."""
    return "".join([each if each.isprintable() and each not in '"\\' else "_" for each in text])
