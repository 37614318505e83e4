"""What the model offers: asked of the running server, and of the model's file."""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.offers import Offer


class _Settings(msgspec.Struct):
    n_ctx: int = 0


class _Props(msgspec.Struct):
    default_generation_settings: _Settings = msgspec.field(default_factory=_Settings)
    modalities: dict[str, Any] = {}
    chat_template_caps: dict[str, Any] = {}


def read_offer(model: str, props: bytes, *, slots: int, context: int, digest: str) -> Offer:
    """The ready offer of a server by its answer to ``GET /props``, empty when it gives none. ``context`` is what was
    asked for; what the server has counts.

    Every llama.cpp server forces answers into JSON and gives log probabilities. Whether it sees and hears depends on
    the projector that it has loaded. A chat template that knows tools is a yes; of others nothing is said, since the
    server puts tools into words for them.
    """
    features = {"json": True, "logprobs": True, "vision": False, "audio": False}
    try:
        told = msgspec.json.decode(props, type=_Props) if props else _Props()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = _Props()
    for name in ("vision", "audio"):
        features[name] = told.modalities.get(name) is True
    if told.chat_template_caps.get("supports_tools") is True:
        features["tools"] = True
    has = told.default_generation_settings.n_ctx
    return Offer(
        model,
        features=features,
        slots=slots,
        context=has if 0 < has < 2**31 else context,
        digest=digest,
    )
