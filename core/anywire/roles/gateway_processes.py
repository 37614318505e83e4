"""Gateways in several processes on one port, before one orchestrator.

The kernel divides the connections of the port among the processes (`anywire.listening.shared_port`). Each asks its
clients for their keys, reads requests and writes answers; the tasks go to the orchestrator over a Unix socket, on the
plane of clients (`anywire.roles.gateway_link`). What is no task they pass on to the orchestrator's own gateway, which
listens on another Unix socket. Both sockets are in a folder of this user alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anywire.access_settings import TlsConfig
from anywire.builtin.local import LocalProcess
from anywire.builtin.tcp import TcpConfig, TcpTransport
from anywire.builtin.tcp.config import PATH_LIMIT
from anywire.config import DEFAULT_PORT, Config, PluginChoice, replaced
from anywire.context import Context
from anywire.errors import ConfigError
from anywire.files.held_folders import HeldFolder
from anywire.files.private_files import runtime_folder
from anywire.gateway import Gateway
from anywire.listening.shared_port import SharedPort
from anywire.metric import Metric
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire.roles.agent import Agent
from anywire.roles.fleet import leave
from anywire.roles.gateway_link import gateway_link
from anywire.transport import MAX_MESSAGE_BYTES
from anywire.transport_tools.options import MOST_MESSAGE_BYTES

log = logging.getLogger(__name__)

SETTLE = 5.0
"""Seconds that a process gets beyond its grace to release everything."""
LINK, OWN = "link", "http"
"""The Unix sockets in the folder: for the tasks, and of the orchestrator's own gateway."""


class GatewayProcesses(Gateway):
    """The processes of one gateway that can share its port, as a gateway of their orchestrator. ``choice`` is that
    gateway, ``public`` an instance of it that is never started and says what it would be."""

    def __init__(
        self, config: Config, plugins: Plugins, orchestrator: Orchestrator, choice: PluginChoice, public: Gateway
    ) -> None:
        super().__init__(public.config)
        self.name = choice.name  # type: ignore[misc]
        self._all, self._plugins, self._choice, self._public = config, plugins, choice, public
        self._orchestrator = orchestrator
        self._held = HeldFolder(runtime_folder() / f"gateways-{secrets.token_hex(4)}")
        self._folder = self._held.path
        if len(os.fsencode(self._folder / LINK)) > PATH_LIMIT:
            raise ConfigError(
                f"{self._folder} is too long a path for a Unix socket: set XDG_RUNTIME_DIR to another folder"
            )
        if not public.config.host:
            raise ConfigError("server.gateway_processes shares a port, and server.host is empty: name an address")
        if public.tls is not None and public.tls.client_ca is not None:
            raise ConfigError(
                "server.gateway_processes and server.tls.client_ca do not go together: which certificate a client has "
                "shown is known to one process alone. Leave one of them out"
            )
        self._link: Agent | None = None
        self._port: SharedPort | None = None
        self._processes: list[LocalProcess] = []
        self._address = ""

    @property
    def own_socket(self) -> Path:
        """Where the orchestrator's own gateway listens."""
        found: Path | None = self._public.config.unix
        return found if found is not None else self._folder / OWN

    def own_options(self) -> dict[str, Any]:
        """Options of the orchestrator's own gateway: the same on a Unix socket alone, where it hears of each client
        what the processes have seen."""
        trusted = [*(self._public.config.trusted_proxies or ()), "unix"]
        own = {"host": "", "port": None, "tls": None, "unix": self.own_socket, "trusted_proxies": trusted}
        return {**self._choice.options, **own}

    def make_folder(self) -> None:
        """Make the folder of the sockets, before anybody listens there. Raises `ConfigError`."""
        self._held.make()

    async def start(self, context: Context) -> None:
        """Start the processes, after the orchestrator's own gateway; returns once each of them serves. Raises
        `ConfigError`, and `LaunchFailed` where one does not start."""
        options = self._public.config
        self._port = await SharedPort.hold(options.host, options.port, DEFAULT_PORT, "server.port (--port)")
        transport = TcpTransport(TcpConfig(**self._link_options))
        lease = self._all.lease
        self._link = gateway_link(
            self._orchestrator, [transport], lease=lease.timeout, heartbeat_interval=lease.heartbeat_interval
        )
        await self._link.start()
        command = [sys.executable, "-m", "anywire.roles.process", "gateway"]
        config = self._config(self._port.port).model_dump_json()
        for number in range(1, self._all.server.gateway_processes + 1):
            process = LocalProcess(f"gateway-{number}", command, config, logs_itself=True)
            self._processes.append(process)
            process.begin()
        await asyncio.gather(*(each.ready() for each in self._processes))
        scheme = "http" if options.tls is None else "https"
        self._address = f"{scheme}://{_shown(options.host)}:{self._port.port}"

    async def close(self) -> None:
        grace = self._all.shutdown_grace
        processes, self._processes = self._processes, []
        await asyncio.gather(*(each.stop(grace + SETTLE) for each in processes))
        link, self._link = self._link, None
        if link is not None:
            await leave(link, 0.0)
        if self._port is not None:
            self._port.close()
        self._held.remove()

    @property
    def address(self) -> str:
        return self._address

    @property
    def is_local(self) -> bool:
        return self._public.is_local

    @property
    def tls(self) -> TlsConfig | None:
        return self._public.tls

    def numbers(self) -> Iterable[Metric]:
        """What is told of the processes to whoever measures."""
        yield Metric("running", "Gateway processes that run now.", sum(each.pid != 0 for each in self._processes))
        restarts = sum(each.restarts for each in self._processes)
        yield Metric("restarts", "Times a gateway process was started again.", restarts, counter=True)

    @property
    def _link_options(self) -> dict[str, Any]:
        """What the orchestrator takes from clients and from agents passes between it and the processes, too."""
        taken = [getattr(each.config, "max_message_bytes", 0) for each in self._orchestrator.transports]
        most = min(max(MAX_MESSAGE_BYTES, self._all.pipeline.max_body_bytes, *taken), MOST_MESSAGE_BYTES)
        return {"client_addresses": [f"unix://{self._folder / LINK}"], "max_message_bytes": most}

    def _config(self, port: int) -> Config:
        """That of one process."""
        options = {**self._choice.options, "port": port, "unix": None, "reuse_port": True}
        return replaced(
            self._all,
            transports={"tcp": self._link_options},
            gateways={self._choice.name: options},
            services=[],
            join=[],
            server=self._all.server.model_dump(exclude_unset=True) | {"unix": self.own_socket},
        )


def shared_gateway(config: Config, plugins: Plugins) -> PluginChoice:
    """The gateway that ``server.gateway_processes`` is for: the first that can share its port. Raises `ConfigError`
    where there is none, and for what does not go with it."""
    for each in assembly.chosen_gateways(config, plugins):
        if "reuse_port" in plugins.load("gateways", each.name).Config.model_fields:
            break
    else:
        raise ConfigError("server.gateway_processes needs a gateway that can share its port (openai can): add it")
    if config.standby.enabled:
        raise ConfigError(
            "server.gateway_processes and standby.enabled do not go together: one that takes over needs the port while "
            "the processes of the other one may still have it. Leave one of them out"
        )
    return each


def _shown(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
