"""What the owner of a connection asks its server: which tools it has, whether they have changed, whether it is well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mcp import Client, MCPError
from mcp_types import Tool
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from anywire_engine_mcp.connection.faults import is_closed, said
from anywire_engine_mcp.connection.read_values import known_tools
from anywire_engine_mcp.tools import MAX_LIST_BYTES, MAX_TOOLS, McpTool

HEALTH_TIMEOUT = 10.0
"""Seconds for an answer to the question whether a server is well."""
MAX_PAGES = 100

log = logging.getLogger(__name__)


async def listed_tools(client: Client) -> tuple[tuple[McpTool, ...], str]:
    """The server's tools within bounds, and a sentence for those that are left out. Raises what the SDK raises."""
    listed: list[Tool] = []
    if client.server_capabilities.tools is not None:
        cursor, size = None, 0
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            listed += page.tools
            size += page_bytes(page)
            cursor = page.next_cursor
            if cursor is None or len(listed) > MAX_TOOLS or size > MAX_LIST_BYTES:
                break
    return known_tools(listed)


async def hear_of_changes(client: Client, label: str, changed: Callable[[], None]) -> None:
    """Call ``changed`` when the tools have, where a server has to be asked to tell; until it is cancelled."""
    capabilities = client.server_capabilities
    if client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return
    if capabilities.tools is None or not capabilities.tools.list_changed:
        return
    try:
        async with client.listen(tools_list_changed=True) as changes:
            async for _ in changes:
                changed()
    except Exception as error:
        log.debug("MCP server %s tells of no changes: %s", label, said(error))


async def is_well(client: Client) -> bool:
    """Whether the server answers in time."""
    session = client.session
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT):
            if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                await session.send_discover(client.protocol_version)
            else:
                await session.send_ping()
    except MCPError as error:
        return not is_closed(error)
    except Exception:
        return False
    return True


def page_bytes(page: BaseModel) -> int:
    """Bytes of a page of a list, about."""
    try:
        return len(page.model_dump_json())
    except ValueError:  # half a letter: nothing that can be written
        return MAX_LIST_BYTES
