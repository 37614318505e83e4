"""What is known of an agent's MCP servers, whether they run or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from anywire.errors import ConfigError, InvalidRequest
from anywire.near import nearest
from anywire_engine_mcp.server_config import MAX_SERVERS, ServerConfig
from anywire_engine_mcp.status import McpStatus
from anywire_engine_mcp.tools import McpTool
from anywire_engine_models.host.status import ModelStatus


class KnownServer:
    """``tools`` are those that may be used, as they were listed last, ``protocol`` the version that was spoken last.
    ``calls`` counts those that were made, ``failed`` those of them without a result."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.tools: tuple[McpTool, ...] = ()
        self.protocol = ""
        self.calls = self.failed = 0

    def told(self, status: ModelStatus) -> McpStatus:
        """The status that the host has of it, as one of an MCP server."""
        return McpStatus(
            status.model,
            status.state,
            status.reason,
            status.exit,
            self.config.transport,
            status.pid,
            self.protocol if status.state == "running" else "",
            status.on_demand,
            status.starts,
            status.serving,
            status.waiting,
            self.calls,
            self.failed,
            status.since,
            self.tools,
        )


class KnownServers:
    """The servers by their labels."""

    def __init__(self) -> None:
        self._known: dict[str, KnownServer] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def find(self, label: str) -> KnownServer | None:
        return self._known.get(label)

    def get(self, label: str) -> KnownServer:
        """Raises `InvalidRequest`, which says the nearest label."""
        known = self._known.get(label)
        if known is None:
            raise self.unknown(label)
        return known

    def unknown(self, label: str) -> InvalidRequest:
        near = nearest(label, self._known)
        hint = f"did you mean {near!r}? " if near else ""
        known = ", ".join(list(self._known)[:20]) or "none"
        return InvalidRequest(f"there is no MCP server {label[:80]!r} here: {hint}known: {known}", param="server_label")

    def configs(self) -> dict[str, ServerConfig]:
        return {label: known.config for label, known in self._known.items()}

    def replace(self, servers: Mapping[str, ServerConfig]) -> None:
        """These are the servers from now on; what is known of one whose configuration is the same stays. Raises
        `ConfigError` for too many, and changes nothing then."""
        if len(servers) > MAX_SERVERS:
            raise ConfigError(f"{len(servers)} MCP servers are too many, the limit is {MAX_SERVERS}")
        before, self._known = self._known, {label: KnownServer(config) for label, config in servers.items()}
        for label, known in self._known.items():
            if label in before and before[label].config == known.config:
                self._known[label] = before[label]
