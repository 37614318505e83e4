"""The MCP servers of the app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from anywire_desktop.call import Command, commands_of, complete
from anywire_desktop.mcp_servers import McpServers

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class McpCommands:
    """``name`` is a server's label, ``server`` what stands under it in ``mcpServers``: ``command`` with ``args`` and
    ``env``, or ``url`` with ``headers``."""

    def __init__(self, servers: McpServers) -> None:
        self._servers = servers

    def all(self) -> Iterable[Command]:
        return commands_of(
            self.mcp_list,
            self.mcp_add,
            self.mcp_update,
            self.mcp_remove,
            self.mcp_connect,
            self.mcp_disconnect,
            self.mcp_status,
            self.mcp_tools_list,
            self.mcp_tools_call,
            self.mcp_resources_list,
            self.mcp_resources_read,
            self.mcp_parse_config,
            self.mcp_import_config,
        )

    async def mcp_list(self) -> Any:
        return [complete(each) for each in (await self._servers.host()).list()]

    async def mcp_add(self, name: Name, server: dict[str, Any]) -> Any:
        return complete(await self._servers.add(name, server))

    async def mcp_update(self, name: Name, server: dict[str, Any]) -> Any:
        return complete(await self._servers.update(name, server))

    async def mcp_remove(self, name: Name) -> None:
        await self._servers.remove(name)

    async def mcp_connect(self, name: Name) -> Any:
        """Start a server and return once its tools are known."""
        return complete(await (await self._servers.host()).connect(name))

    async def mcp_disconnect(self, name: Name) -> Any:
        return complete(await (await self._servers.host()).disconnect(name))

    async def mcp_status(self, name: Name) -> Any:
        return complete((await self._servers.host()).status(name))

    async def mcp_tools_list(self, name: Name) -> Any:
        return await (await self._servers.host()).tools(name)

    async def mcp_tools_call(self, name: Name, tool: str, arguments: dict[str, Any] | None = None) -> Any:
        return await self._servers.call_tool(name, tool, arguments or {})

    async def mcp_resources_list(self, name: Name) -> Any:
        return await (await self._servers.host()).resources(name)

    async def mcp_resources_read(self, name: Name, uri: str) -> Any:
        return await (await self._servers.host()).read(name, uri)

    async def mcp_parse_config(self, config: str | dict[str, Any]) -> dict[str, Any]:
        """The names of the servers in a configuration as other programs have it, and why others are left out."""
        found = self._servers.parse(config)
        return {"servers": list(found.servers), "skipped": dict(found.skipped)}

    async def mcp_import_config(self, config: str | dict[str, Any]) -> dict[str, Any]:
        """Take over the servers of such a configuration."""
        return await self._servers.take_over(config)
