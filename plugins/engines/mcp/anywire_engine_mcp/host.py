"""The owner of MCP servers: `ModelHost` with servers in place of models."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from anywire.clock import Clock
from anywire.errors import EngineFailed, InvalidRequest, ModelNotFound, ModelStopped, QueueFull
from anywire.near import nearest
from anywire_engine_mcp.connection.faults import ServerGone, ToolFault
from anywire_engine_mcp.connection.launcher import McpLauncher, NoDevices, hosted
from anywire_engine_mcp.connection.server import ConnectedServer
from anywire_engine_mcp.known_servers import KnownServers
from anywire_engine_mcp.server_config import LABEL, ServerConfig
from anywire_engine_mcp.status import Listener, McpChanged, McpStatus
from anywire_engine_mcp.tools import McpTool, ToolResult
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.model_log import Logged
from anywire_engine_models.host.settings import HostSettings
from anywire_engine_models.host.status import ModelChanged, ModelStatus

FAILED_DEPENDENCY = 424
"""The status of what fails because a server of tools does: it says nothing against the agent's model."""

log = logging.getLogger(__name__)


class McpHost:
    """Owns the processes of, and the connections to, a set of MCP servers by their labels.

    All methods are called on the event loop. Errors are `InvalidRequest` (no such server or tool, the nearest name
    said), `ModelStopped` (the server is stopped and no request starts it), `EngineFailed` with the status 424 (it did
    not start, or ended), `QueueFull`, `ShuttingDown`, and `ToolFault` (`call` alone: what the server said against the
    call, or that it did not answer in time).
    """

    def __init__(self, *, clock: Clock | None = None, settings: HostSettings | None = None) -> None:
        self._known = KnownServers()
        self._host = ModelHost(McpLauncher(self._connected), NoDevices(), settings, clock=clock)
        self._host.listen(self._host_changed)
        self._listeners: list[Listener] = []

    async def begin(self, servers: Mapping[str, ServerConfig]) -> None:
        """Begin with these servers, and start those with ``autostart`` in the background."""
        self._known.replace(servers)
        await self._host.begin([hosted(label, config) for label, config in servers.items()])

    async def close(self) -> None:
        """End all servers, and answer all who wait; idempotent. Nothing is left."""
        await self._host.close()

    # The servers

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self._known)

    def config(self, label: str) -> ServerConfig:
        return self._known.get(label).config

    def list(self) -> tuple[McpStatus, ...]:
        return tuple(self.status(label) for label in self._known)

    def status(self, label: str) -> McpStatus:
        return self._known.get(label).told(self._host.status(label))

    async def add(self, label: str, config: ServerConfig) -> McpStatus:
        """Have one more server; with ``autostart`` it is started, and how that goes is told by its state. Raises
        `InvalidRequest` when there is one of that label."""
        if self._known.find(label) is not None:
            raise InvalidRequest(f"there is an MCP server {label!r} already: update or remove it", param="server")
        if not LABEL.fullmatch(label):
            raise InvalidRequest(f"{label[:80]!r} is no label for an MCP server", param="server")
        await self._replace(self._known.configs() | {label: config})
        return await self._started_if_wanted(label)

    async def update(self, label: str, config: ServerConfig) -> McpStatus:
        """Change how a server is run. One that runs is stopped first, and started again."""
        runs = self.status(label).state in ("starting", "running")
        await self.disconnect(label)
        await self._replace(self._known.configs() | {label: config})
        return await self.connect(label) if runs else await self._started_if_wanted(label)

    async def remove(self, label: str) -> None:
        """Stop a server and forget it."""
        await self.disconnect(label)
        await self._replace({name: config for name, config in self._known.configs().items() if name != label})

    async def connect(self, label: str) -> McpStatus:
        """Start a server and return when its tools are known; at once if it runs."""
        with self._errors(label):
            await self._host.start(self._checked(label))
        return self.status(label)

    async def disconnect(self, label: str) -> McpStatus:
        """Stop a server and return when it is gone. Calls under way end with an error."""
        with self._errors(label):
            await self._host.stop(self._checked(label))
        return self.status(label)

    async def restart(self, label: str) -> McpStatus:
        await self.disconnect(label)
        return await self.connect(label)

    # What they are for

    async def tools(self, label: str, told: Callable[[str], None] = lambda detail: None) -> tuple[McpTool, ...]:
        """The tools of a server that may be used; one that is ``on_demand`` is started for it. ``told`` as in
        `ModelHost.use`."""
        async with self._use(label, told):
            return self.status(label).tools

    async def call(
        self,
        label: str,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float = math.inf,
        told: Callable[[str], None] = lambda detail: None,
        trace: str = "",
    ) -> ToolResult:
        """Call a tool; a server that is ``on_demand`` is started for it. ``timeout`` is in seconds, where that is
        less than the server's own. The server is told ``trace`` (`anywire.messages.TaskRequest`). A tool that says
        that it failed has given a result. Raises as the class says."""
        known = self._known.get(label)
        if not known.config.allows(tool):
            raise InvalidRequest(f"the tool {tool!r} of the MCP server {label!r} may not be used here", param="tool")
        async with self._use(label, told) as server:
            if not any(each.name == tool for each in server.tools):
                near = nearest(tool, [each.name for each in server.tools])
                hint = f"; did you mean {near!r}?" if near else ""
                raise InvalidRequest(f"the MCP server {label!r} has no tool {tool!r}{hint}", param="tool")
            known.calls += 1
            known.failed += 1
            result = await server.requests.call(tool, arguments, min(timeout, known.config.timeout), trace)
            known.failed -= 1
            return result

    async def resources(self, label: str) -> tuple[dict[str, Any], ...]:
        """What a server lists for reading, in MCP's own form."""
        async with self._use(label) as server:
            return await server.requests.resources()

    async def read(self, label: str, uri: str) -> tuple[dict[str, Any], ...]:
        """The contents of a resource: objects with ``uri``, ``mimeType``, and ``text`` or ``blob`` (base64)."""
        async with self._use(label) as server:
            return await server.requests.read(uri)

    def logs(
        self, label: str, *, lines: int = 100, follow: bool = False, after: str = ""
    ) -> AsyncGenerator[Logged, None]:
        """What a server wrote on stderr; see `ModelHost.logs`."""
        return self._host.logs(self._checked(label), lines=lines, follow=follow, after=after)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` at every change; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    # Inside

    @asynccontextmanager
    async def _use(
        self, label: str, told: Callable[[str], None] = lambda detail: None
    ) -> AsyncGenerator[ConnectedServer]:
        with self._errors(label):
            async with self._host.use(self._checked(label), told) as server:
                assert isinstance(server, ConnectedServer)
                yield server

    @contextmanager
    def _errors(self, label: str) -> Iterator[None]:
        """What a host says of models, said of MCP servers."""
        try:
            yield
        except ModelNotFound as error:
            raise self._known.unknown(label) from error
        except ModelStopped as error:
            raise ModelStopped(
                f"the MCP server {label!r} is stopped and is not started by a request: start it with "
                f"`anywire mcp start {label}`",
                param="server_label",
            ) from error
        except ServerGone as error:
            raise EngineFailed(
                f"{error}; `anywire mcp logs {label}` has what it wrote", status=FAILED_DEPENDENCY
            ) from error
        except QueueFull as error:
            raise QueueFull(f"too many calls wait for the MCP server {label!r}", retry_after=1.0) from error
        except EngineFailed as error:
            ended = self._host.status(label).exit
            why = ended.reason if ended is not None else str(error)
            raise EngineFailed(
                f"the MCP server {label!r} does not run: {why}; `anywire mcp logs {label}` has what it wrote",
                status=FAILED_DEPENDENCY,
            ) from error

    def _checked(self, label: str) -> str:
        self._known.get(label)
        return label

    async def _replace(self, servers: Mapping[str, ServerConfig]) -> None:
        self._known.replace(servers)
        await self._host.replace([hosted(label, config) for label, config in servers.items()])

    async def _started_if_wanted(self, label: str) -> McpStatus:
        if self._known.get(label).config.autostart:
            try:
                return await self.connect(label)
            except EngineFailed as error:
                log.warning("%s", error)
        return self.status(label)

    def _connected(self, server: ConnectedServer) -> None:
        known = self._known.find(server.label)
        if known is None:
            return
        tools = tuple(each for each in server.tools if known.config.allows(each.name))
        known.protocol = server.protocol or known.protocol
        if tools != known.tools:
            known.tools = tools
            self._tell(server.label)

    def _host_changed(self, change: ModelChanged) -> None:
        self._tell(change.status.model, change.status)

    def _tell(self, label: str, status: ModelStatus | None = None) -> None:
        known = self._known.find(label)
        if known is None:
            return
        try:
            told = McpChanged(known.told(status if status is not None else self._host.status(label)))
        except ModelNotFound:
            return
        for listener in tuple(self._listeners):
            try:
                listener(told)
            except Exception:
                log.exception("a listener failed at a change of the MCP server %s", label)


__all__ = ["McpChanged", "McpHost", "McpStatus", "McpTool", "ToolFault", "ToolResult"]
