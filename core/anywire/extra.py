"""Reading `Chunk.extra` and `Delta.extra` of a chat or completion."""

from __future__ import annotations

from typing import Any

import msgspec


def split(extra: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The choices, and what the engine said beside them: ``extra`` is their list, or an object with a member
    ``choices``. Raises ``msgspec.DecodeError`` when it is neither."""
    content = msgspec.json.decode(extra)
    if isinstance(content, list):
        return content, {}
    if not isinstance(content, dict) or not isinstance(content.get("choices"), list):
        raise msgspec.DecodeError("neither a list of choices nor an object that has one")
    return content.pop("choices"), content
