"""The transport itself: settings in, hubs and ports out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import zmq

from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire_zeromq.config import ZeromqConfig, is_local
from anywire_zeromq.hub import ZeromqHub
from anywire_zeromq.port import ZeromqPort


class ZeromqTransport(Transport):
    """ROUTER and DEALER over TCP or Unix sockets, msgpack, optionally secured by CURVE.

    ``liveliness`` is ``connection``: a killed peer is noticed as soon as the kernel closes its connection, a network
    that is away by the kernel too, after four leases; a process that hangs or is paused, by the registry.
    """

    name: ClassVar[str] = "zeromq"
    Config = ZeromqConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="connection", discovery="directory")
    config: ZeromqConfig

    def __init__(self, config: ZeromqConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = ZeromqHub(self.config, hub, plane, sink)
        await self._open(end)
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = ZeromqPort(self.config, info, plane, sink)
        await self._open(end)
        return end

    def effective_settings(self) -> Mapping[str, str]:
        return self._settings

    @property
    def is_local(self) -> bool:
        """True when every address, those that are listened on and those that are dialled, is a Unix socket or of the
        loopback."""
        return all(map(is_local, [*self.config.agent_addresses, *self.config.client_addresses]))

    async def _open(self, end: ZeromqHub | ZeromqPort) -> None:
        try:
            address = end.open()
        except BaseException:
            await end.abandon()
            raise
        directory = self.config.agent_addresses if end.plane == "agent" else self.config.client_addresses
        self._settings |= {
            f"{end.plane}_listens_on" if address else f"{end.plane}_connects_to": address or ", ".join(directory),
            "encoding": "msgpack",
            "security": "null" if self.config.secret_key is None else "curve",
            **self.config.bounds(),
            "connection_timeout_ms": str(end.timeout_ms),
            "libzmq": zmq.zmq_version(),
        }
        end.guard.open()
