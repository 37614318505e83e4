"""The MCP servers of the app: kept in a file, run by `anywire_engine_mcp`, their tools given to chats."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from anywire.errors import AnywireError, ConfigError, EngineFailed, InvalidRequest
from anywire_desktop.app_files import AppFiles, read_object, write_whole
from anywire_engine_mcp.tool_loop.functions import Place, named
from anywire_engine_mcp.tools import ToolResult


class Host(Protocol):
    """What is used of `anywire_engine_mcp.host.McpHost`. A status has ``server``, ``state`` and ``tools``; a tool
    ``name``, ``description`` and ``schema``; a result ``text`` and ``is_error``."""

    async def begin(self, servers: Mapping[str, Any]) -> None: ...

    async def close(self) -> None: ...

    def list(self) -> tuple[Any, ...]: ...

    def status(self, label: str) -> Any: ...

    async def add(self, label: str, config: Any) -> Any: ...

    async def update(self, label: str, config: Any) -> Any: ...

    async def remove(self, label: str) -> None: ...

    async def connect(self, label: str) -> Any: ...

    async def disconnect(self, label: str) -> Any: ...

    async def tools(self, label: str) -> tuple[Any, ...]: ...

    async def call(self, label: str, tool: str, arguments: Mapping[str, Any], *, timeout: float) -> Any: ...

    async def resources(self, label: str) -> Any: ...

    async def read(self, label: str, uri: str) -> Any: ...

    def listen(self, listener: Callable[[Any], None]) -> Callable[[], None]: ...


class Found(Protocol):
    """What reading servers from JSON gives."""

    @property
    def servers(self) -> Mapping[str, Any]: ...

    @property
    def skipped(self) -> Mapping[str, str]: ...

    @property
    def written(self) -> Mapping[str, tuple[str, Mapping[str, Any]]]: ...


class McpServers:
    """Begins with the servers of the app's file at the first command that needs them: without one, nothing of MCP is
    loaded. Changes are written to the file before they count; it has the common form ``{"mcpServers": {…}}``."""

    def __init__(
        self,
        files: AppFiles,
        make_host: Callable[[], Host] | None = None,
        read_servers: Callable[[bytes], Found] | None = None,
    ) -> None:
        """Without ``make_host`` and ``read_servers`` it is `anywire_engine_mcp`."""
        self._files = files
        self._make_host = make_host or _make_host
        self._read_servers = read_servers or _read_servers
        self._beginning: asyncio.Task[Host] | None = None

    async def host(self) -> Host:
        """The host, begun with the servers of the file. Raises `ConfigError` when the file cannot be read."""
        if self._beginning is None or (self._beginning.done() and self._beginning.exception() is not None):
            self._beginning = asyncio.create_task(self._begin(), name="begin MCP servers")
        return await asyncio.shield(self._beginning)

    async def close(self) -> None:
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            await asyncio.wait({beginning})
            if beginning.exception() is None:
                await beginning.result().close()

    def parse(self, config: str | dict[str, Any]) -> Found:
        """The servers in JSON of the common form, given as text or as an object. Raises `ConfigError`."""
        return self._read_servers(config.encode() if isinstance(config, str) else msgspec.json.encode(config))

    async def add(self, label: str, server: Mapping[str, Any]) -> Any:
        host = await self.host()
        config = self._one(label, server)
        await self._files.work(self._write, {label: server}, new=True)
        return await host.add(label, config)

    async def update(self, label: str, server: Mapping[str, Any]) -> Any:
        host = await self.host()
        host.status(label)
        config = self._one(label, server)
        await self._files.work(self._write, {label: server})
        return await host.update(label, config)

    async def remove(self, label: str) -> None:
        host = await self.host()
        host.status(label)
        await self._files.work(self._write, {label: None})
        await host.remove(label)

    async def take_over(self, config: str | dict[str, Any]) -> dict[str, Any]:
        """Add all servers of a configuration that are not here yet; what was added, and what was left out and why."""
        host = await self.host()
        found = self.parse(config)
        here = {each.server for each in host.list()}
        skipped = dict(found.skipped)
        added = []
        for label, server in found.servers.items():
            if label in here:
                skipped[label] = "there is a server of this name already"
                continue
            try:
                await self._files.work(self._write, {label: found.written[label][1]}, new=True)
                await host.add(label, server)
            except (ConfigError, InvalidRequest) as error:
                skipped[label] = str(error)
            else:
                added.append(label)
        return {"added": added, "skipped": skipped}

    # Tools of chats: see `anywire_desktop.answer.Tools`

    async def functions(self) -> dict[str, Place]:
        """The tools of the servers that run now."""
        if self._beginning is None and not await self._files.work(self._files.mcp.exists):
            return {}
        try:
            host = await self.host()
        except AnywireError:  # a file that cannot be read keeps nobody from chatting; its own commands tell
            return {}
        running = [status for status in host.list() if status.state == "running"]
        return named([Place(status.server, tool) for status in running for tool in status.tools], labelled=True)

    async def carry(self, place: Place, arguments: Mapping[str, Any], timeout: float) -> ToolResult:
        """Call a tool for a model, which is told what goes wrong."""
        try:
            result = await self.call_tool(place.label, place.tool.name, arguments, timeout)
        except AnywireError as error:
            return ToolResult(str(error), is_error=True)
        return ToolResult(str(result.text), bool(result.is_error))

    async def call_tool(self, label: str, tool: str, arguments: Mapping[str, Any], timeout: float = math.inf) -> Any:
        """What a tool of a server gives. ``timeout`` is in seconds, where that is less than the server's own."""
        host = await self.host()
        try:
            return await host.call(label, tool, arguments, timeout=timeout)
        except AnywireError:
            raise
        except Exception as error:  # what a server says against a call is an exception of its own
            raise EngineFailed(f"the tool {tool[:100]} failed: {error}") from error

    # Inside

    async def _begin(self) -> Host:
        host = self._make_host()
        content = await self._files.work(self._read)
        servers: Mapping[str, Any] = self._read_servers(msgspec.json.encode(content)).servers if content else {}
        try:
            await host.begin(servers)
        except BaseException:
            await host.close()
            raise
        return host

    def _one(self, label: str, server: Mapping[str, Any]) -> Any:
        found = self._read_servers(msgspec.json.encode({"mcpServers": {label: server}}))
        for config in found.servers.values():
            if label in found.servers:
                return config
            raise InvalidRequest(f"{label[:80]!r} is no name for a server", param="name")
        raise InvalidRequest(f"the server is not understood: {next(iter(found.skipped.values()), '')}", param="server")

    def _read(self) -> dict[str, Any]:
        try:
            return read_object(self._files.mcp)
        except FileNotFoundError:
            return {}

    def _write(self, changes: Mapping[str, Any], new: bool = False) -> None:
        content = self._read()
        if "servers" in content and "mcpServers" not in content:
            content["mcpServers"] = content.pop("servers")
        servers = content.get("mcpServers") if content else content.setdefault("mcpServers", {})
        if not isinstance(servers, dict):
            raise ConfigError(f'{self._files.mcp}: bring it into the form {{"mcpServers": {{"NAME": {{…}}}}}} first')
        written = self._read_servers(msgspec.json.encode(content)).written
        for label, server in changes.items():
            if new and (label in servers or label in written):
                raise InvalidRequest(f"there is a server {label!r} already: update or remove it", param="name")
            servers.pop(written[label][0] if label in written else label, None)
            if server is not None:
                servers[label] = dict(server)
        self._read_servers(msgspec.json.encode(content))  # what could not be read again is not written
        write_whole(self._files.mcp, msgspec.json.format(msgspec.json.encode(content), indent=2))


def _make_host() -> Host:
    from anywire_engine_mcp.host import McpHost

    return McpHost()


def _read_servers(data: bytes) -> Found:
    from anywire_engine_mcp.servers_file import read_servers

    return read_servers(data)
