"""What the SDK gives of a server's tools and of a call, read into our own types."""

from __future__ import annotations

import msgspec
from mcp_types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
)

from anywire_engine_mcp.tools import MAX_LIST_BYTES, MAX_SCHEMA_BYTES, MAX_TOOLS, McpTool, ToolResult


def known_tools(listed: list[Tool]) -> tuple[tuple[McpTool, ...], str]:
    """The tools of a server's list within bounds, and a sentence for those that are left out; empty for none."""
    found: dict[str, McpTool] = {}
    size = left_out = 0
    for each in listed:
        tool = McpTool(
            each.name,
            each.description or "",
            each.input_schema,
            each.title or (each.annotations.title if each.annotations and each.annotations.title else ""),
            bool(each.annotations and each.annotations.read_only_hint),
        )
        try:
            length = len(msgspec.json.encode(tool))
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
            length = MAX_SCHEMA_BYTES + 1
        if length > MAX_SCHEMA_BYTES or size + length > MAX_LIST_BYTES or len(found) >= MAX_TOOLS or tool.name in found:
            left_out += 1
            continue
        size += length
        found[tool.name] = tool
    told = f"{left_out} of its tools are left out: too many, too long, or named twice" if left_out else ""
    return tuple(found.values()), told


def read_result(result: CallToolResult) -> ToolResult:
    """What a call gave, as text: what is no text is named by its type and size."""
    parts = []
    for each in result.content:
        if isinstance(each, TextContent):
            parts.append(each.text)
        elif isinstance(each, ImageContent | AudioContent):
            parts.append(f"[{each.mime_type}, {len(each.data) * 3 // 4} bytes, not shown]")
        elif isinstance(each, EmbeddedResource):
            inside = each.resource
            if isinstance(inside, TextResourceContents):
                parts.append(inside.text)
            else:
                parts.append(f"[the resource {inside.uri}, not shown]")
        elif isinstance(each, ResourceLink):
            parts.append(f"[the resource {each.uri}]")
    text = "\n".join(parts)
    if not text and result.structured_content is not None:
        text = msgspec.json.encode(result.structured_content).decode()
    return ToolResult(text, result.is_error, result.structured_content)
