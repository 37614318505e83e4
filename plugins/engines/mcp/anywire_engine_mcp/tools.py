"""What a server's tools are, and what a call of one gives."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_TOOLS = 512
"""Tools of one server that are listed."""
MAX_SCHEMA_BYTES = 64 * 1024
"""Bytes of the description and the schema of one tool; one with more is left out."""
MAX_LIST_BYTES = 1024 * 1024
"""Bytes of all tools of one server."""


class McpTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """``schema`` is the JSON schema of its arguments. ``read_only``: the server says that a call changes nothing."""

    name: str
    description: str = ""
    schema: dict[str, Any] = {}
    title: str = ""
    read_only: bool = False


class ToolResult(msgspec.Struct, frozen=True):
    """``text`` is for a model. ``structured`` is the same as JSON where the server gives it. ``is_error``: the tool
    says that it failed, and ``text`` why."""

    text: str
    is_error: bool = False
    structured: Any = None


def cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters and a note of how many are left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut here: {len(text) - limit} characters more]"
