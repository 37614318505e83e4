"""What a server lists at ``GET /models``, with whatever it tells of each model.

| told by | member | read as |
|---|---|---|
| everybody | ``owned_by`` | owner |
| vLLM, SGLang | ``max_model_len`` | context |
| OpenRouter | ``context_length``, ``architecture.input_modalities``, ``supported_parameters`` | context, features |
| Groq | ``context_window`` | context |
| LM Studio | ``loaded_context_length``, ``max_context_length``, ``type``, ``capabilities`` | context, kinds, features |
| Mistral, Together | ``type``, ``capabilities`` | kinds, features |
| llama.cpp | ``meta.n_ctx``, ``capabilities`` in ``models`` | context, kinds, features |
| Anywire | ``kinds`` | kinds |
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from anywire.messages import Kind

_CONTEXTS = ("max_model_len", "loaded_context_length", "context_length", "context_window", "max_context_length")
_TEXT: tuple[Kind, ...] = ("chat", "completion")
_KINDS: dict[str, tuple[Kind, ...]] = {
    "embedding": ("embedding",),
    "embeddings": ("embedding",),
    "chat": _TEXT,
    "language": _TEXT,
    "llm": _TEXT,
    "vlm": _TEXT,
    "rerank": ("rerank",),
    "reranker": ("rerank",),
    "image": ("image",),
    "transcribe": ("transcription",),
}
_FEATURES = {"function_calling": "tools", "tool_use": "tools", "tools": "tools", "vision": "vision", "audio": "audio"}
MAX_OWNER_CHARS = 128


class ListedModel(msgspec.Struct, frozen=True):
    """``context`` is in tokens, 0 when it is not told; ``kinds`` are empty then, and ``owner`` is. ``is_anywires``: it
    is listed by a gateway of Anywire, and ``owner`` is not the server that is asked."""

    id: str
    context: int = 0
    kinds: tuple[Kind, ...] = ()
    features: dict[str, bool] = {}
    owner: str = ""
    is_anywires: bool = False


class _Listing(msgspec.Struct):
    data: list[Any] | None = None
    models: Any = None


_decode = msgspec.json.Decoder(_Listing).decode


def read_models(body: bytes) -> list[ListedModel]:
    """The models of an answer to ``GET /models``. Raises ``msgspec.DecodeError`` or ``UnicodeDecodeError``."""
    listing = _decode(body)
    beside = {}
    for each in listing.models if isinstance(listing.models, list) else ():
        if isinstance(each, dict):
            beside[str(each.get("model"))] = each
    return [_read(each, beside) for each in listing.data or () if isinstance(each, dict) and _is_text(each.get("id"))]


def _read(entry: dict[str, Any], beside: dict[str, dict[str, Any]]) -> ListedModel:
    name = entry["id"]
    meta = entry.get("meta")
    contexts = [entry.get(each) for each in _CONTEXTS]
    if isinstance(meta, dict):
        contexts.append(meta.get("n_ctx"))
    context = next((each for each in contexts if type(each) is int and 0 < each < 2**31), 0)
    said = entry.get("capabilities") or beside.get(name, {}).get("capabilities")
    kind, owner = entry.get("type"), entry.get("owned_by")
    kinds = _KINDS.get(kind, ()) if isinstance(kind, str) else ()
    if not kinds and isinstance(said, list) and "embedding" in said:
        kinds = _KINDS["embedding"]
    told = entry.get("kinds")
    if isinstance(told, list):
        kinds = tuple([each for each in get_args(Kind) if each in told])
    known_owner = owner[:MAX_OWNER_CHARS] if isinstance(owner, str) else ""
    return ListedModel(name, context, kinds, _features(entry, said), known_owner, isinstance(told, list))


def _features(entry: dict[str, Any], said: Any) -> dict[str, bool]:
    features: dict[str, bool] = {}
    if isinstance(said, dict):
        features = {_FEATURES[name]: has for name, has in said.items() if name in _FEATURES and isinstance(has, bool)}
    elif isinstance(said, list):
        features = {_FEATURES[name]: True for name in said if isinstance(name, str) and name in _FEATURES}
        if "multimodal" in said:
            features["vision"] = True
    if entry.get("type") == "vlm":
        features["vision"] = True
    architecture = entry.get("architecture")
    inputs = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    if isinstance(inputs, list):
        features |= {"vision": "image" in inputs, "audio": "audio" in inputs}
    parameters = entry.get("supported_parameters")
    if isinstance(parameters, list):
        features["tools"] = "tools" in parameters
    return features


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
