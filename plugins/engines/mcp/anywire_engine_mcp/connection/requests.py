"""What callers ask a connected server: to call a tool, to list and to read resources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from mcp import Client, MCPError
from mcp_types import RequestParamsMeta, TextResourceContents

from anywire_engine_mcp.connection.faults import ServerGone, ToolFault, is_closed, said
from anywire_engine_mcp.connection.questions import MAX_PAGES, page_bytes
from anywire_engine_mcp.connection.read_values import read_result
from anywire_engine_mcp.tools import MAX_LIST_BYTES, ToolResult

MAX_RESOURCES = 1000


class Requests:
    """Requests of any task. ``client`` gives the connection's client, None when it is over. ``broke`` is called when a
    request finds the connection broken; ``how`` says in a sentence how it has ended. All raise `ServerGone` and
    `ToolFault`. ``under_way`` counts them."""

    def __init__(
        self,
        label: str,
        timeout: float,
        client: Callable[[], Client | None],
        broke: Callable[[str], None],
        how: Callable[[], Awaitable[str]],
    ) -> None:
        self.under_way = 0
        self._label, self._timeout = label, timeout
        self._client, self._broke, self._how = client, broke, how

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float, trace: str = "") -> ToolResult:
        """Call a tool. ``timeout`` is in seconds. ``trace`` goes with the request, as MCP has it: in its `_meta`."""
        async with self._asking(f"the tool {tool}", timeout) as client:
            result = await client.call_tool(tool, dict(arguments), meta=_meta(trace))
        return read_result(result)

    async def resources(self) -> tuple[dict[str, Any], ...]:
        """What the server lists for reading, at most `MAX_RESOURCES`, and no page after `MAX_LIST_BYTES`."""
        found: list[dict[str, Any]] = []
        cursor, size = None, 0
        async with self._asking("the list of resources", self._timeout) as client:
            for _ in range(MAX_PAGES):
                page = await client.list_resources(cursor=cursor)
                found += [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in page.resources]
                size += page_bytes(page)
                cursor = page.next_cursor
                if cursor is None or len(found) >= MAX_RESOURCES or size > MAX_LIST_BYTES:
                    break
        return tuple(found[:MAX_RESOURCES])

    async def read(self, uri: str) -> tuple[dict[str, Any], ...]:
        """The contents of a resource: ``uri``, ``mimeType``, and ``text`` or ``blob`` (base64)."""
        async with self._asking(f"the resource {uri}", self._timeout) as client:
            result = await client.read_resource(uri)
        return tuple(
            {"uri": str(each.uri), "mimeType": each.mime_type or ""}
            | ({"text": each.text} if isinstance(each, TextResourceContents) else {"blob": each.blob})
            for each in result.contents
        )

    @asynccontextmanager
    async def _asking(self, what: str, timeout: float) -> AsyncGenerator[Client]:
        """The client for one request; turns what it raises into our errors."""
        client = self._client()
        if client is None:
            raise ServerGone(f"the MCP server {self._label} has ended")
        self.under_way += 1
        try:
            async with asyncio.timeout(timeout):
                yield client
        except TimeoutError:
            raise ToolFault(f"{what} did not answer within {timeout:g} s") from None
        except MCPError as error:
            if self._client() is None or is_closed(error):
                self._broke(f"its connection broke: {said(error)}")
                raise ServerGone(f"the MCP server {self._label} ended during the call: {await self._how()}") from error
            raise ToolFault(f"{what} failed: {said(error)}") from error
        except Exception as error:
            # The SDK raises errors of many kinds for an answer that is against the protocol or the tool's own schema.
            raise ToolFault(f"{what} failed: {said(error)}") from error
        finally:
            self.under_way -= 1


def _meta(trace: str) -> RequestParamsMeta | None:
    parent, _, state = trace.partition(" ")
    if not parent:
        return None
    told: dict[str, Any] = {"traceparent": parent} | ({"tracestate": state} if state else {})
    return cast("RequestParamsMeta", told)
