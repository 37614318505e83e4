"""Starts MCP servers for a `anywire_engine_models.host.actor.ModelHost`: to connect one is to launch it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anywire_engine_mcp.connection.server import ConnectedServer
from anywire_engine_mcp.server_config import ServerConfig
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Device, Server, Watcher


class McpLauncher:
    """``changed`` is called with each server that is connected, and again whenever its tools have changed."""

    def __init__(self, changed: Callable[[ConnectedServer], None]) -> None:
        self._changed = changed

    async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> Server:
        server = ConnectedServer(model.name, model.launch, watcher, self._changed)
        await server.open()
        return server


class NoDevices:
    """MCP servers need none."""

    async def choose(self, model: HostedModel, without: Sequence[str] = ()) -> Device:
        return Device("cpu")


MAX_RESTARTS = 5
WITHOUT_BOUND = 100_000


def _max_restarts(config: ServerConfig) -> int:
    """A program that ends again and again is broken; a server elsewhere may be away for an hour."""
    if config.max_restarts is not None:
        return config.max_restarts
    return MAX_RESTARTS if config.command else WITHOUT_BOUND


def hosted(label: str, config: ServerConfig) -> HostedModel:
    """A server as a host starts it."""
    return HostedModel(
        label,
        slots=config.parallel,
        autostart=config.autostart,
        on_demand=config.on_demand,
        idle_ttl=config.idle_ttl,
        restart=config.restart,
        max_restarts=_max_restarts(config),
        # The server itself tells of its own times; those of the host are for one that does not come back.
        start_timeout=config.start_timeout + 2 * config.stop_grace + 10.0,
        stop_grace=2 * config.stop_grace + 10.0,
        launch=config,
    )
