"""How many tokens a prompt has, where no tokenizer can be asked: an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from anywire.demand import CHARS_PER_TOKEN
from anywire_gateway_openai.anthropic.messages import Object

TOKENS_OF_IMAGE = 1600
"""About what an image of a thousand pixels to a side takes."""
TOKENS_AROUND = 4
"""Of each message beside its text: what a chat template puts around it."""

_encode = msgspec.json.Encoder().encode


def estimated_tokens(chat: Mapping[str, Any]) -> int:
    """About the tokens of a chat's messages and tools, by the length of their texts. An image counts by itself, and a
    file by its bytes."""
    messages: list[Object] = chat["messages"]
    chars = sum(_chars(message) for message in messages)
    tools = chat.get("tools")
    if tools:
        chars += len(_encode(tools))
    images = sum(_images(message.get("content")) for message in messages)
    return -(-chars // CHARS_PER_TOKEN) + TOKENS_AROUND * len(messages) + TOKENS_OF_IMAGE * images


def _chars(message: Object) -> int:
    content = message.get("content")
    chars = len(str(message.get("reasoning_content") or ""))
    if isinstance(content, str):
        chars += len(content)
    for part in content if isinstance(content, list) else ():
        chars += len(part.get("text", "")) + len(part.get("file", {}).get("file_data", ""))
    for call in message.get("tool_calls") or ():
        chars += len(call["function"]["name"]) + len(call["function"]["arguments"])
    return chars


def _images(content: object) -> int:
    return sum(part.get("type") == "image_url" for part in content) if isinstance(content, list) else 0
