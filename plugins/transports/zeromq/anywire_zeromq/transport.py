"""The transport itself: settings in, hubs and ports out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import zmq

from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Lan, Plane, Transport
from anywire.transport_tools import (
    LinkProofs,
    encryption_told,
    findings,
    free_addresses,
    lan_addresses,
    meeting_addresses,
)
from anywire_zeromq.config import ZeromqConfig, is_local, public_key, shared_key
from anywire_zeromq.hub import ZeromqHub
from anywire_zeromq.keys import make_keys
from anywire_zeromq.port import ZeromqPort


class ZeromqTransport(Transport):
    """ROUTER and DEALER over TCP or Unix sockets, msgpack, optionally secured by CURVE.

    ``liveliness`` is ``connection``: a killed peer is noticed as soon as the kernel closes its connection, a network
    that is away by the kernel too, after four leases; a process that hangs or is paused, by the registry.
    """

    name: ClassVar[str] = "zeromq"
    Config = ZeromqConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        liveliness="connection", discovery="directory", binds_identity=True
    )
    config: ZeromqConfig

    def __init__(self, config: ZeromqConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}
        self._ends: list[ZeromqHub | ZeromqPort] = []
        self._bound: dict[Plane, str] = {}

    @classmethod
    def free_options(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return free_addresses(ZeromqConfig, options)

    @classmethod
    def lan_options(cls, options: Mapping[str, Any], lan: Lan) -> Mapping[str, Any]:
        found = lan_addresses(ZeromqConfig, options, lan.host)
        if "secret_key" in options or not lan.secret:
            return found
        key = shared_key(lan.secret)
        return found | {"secret_key": key, "server_key": public_key(key), "allowed_keys": [public_key(key)]}

    def meeting_options(self, host: str) -> Mapping[str, Any]:
        found = meeting_addresses(self._bound, host)
        secret = self.config.secret_key
        if secret is not None and (own := public_key(secret.get_secret_value())) in self.config.allowed_keys:
            # One key for all ends. Where each has its own, whoever joins has to bring one.
            found |= {"secret_key": secret.get_secret_value(), "server_key": own}
        elif secret is None:
            found |= encryption_told(self.config.encrypted, self.identity is not None, self._bound)
        return found

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = ZeromqHub(self.config, hub, plane, sink, LinkProofs.of(self, plane))
        await self._open(end)
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = ZeromqPort(self.config, info, plane, sink, LinkProofs.of(self, plane))
        await self._open(end)
        return end

    def findings(self) -> list[tuple[str, str]]:
        """Whom what is open now cannot be linked to, each with what would do; `anywire doctor` tells."""
        return findings(self._ends, self.name)

    def effective_settings(self) -> Mapping[str, str]:
        return self._settings

    @property
    def is_local(self) -> bool:
        """True when every address, those that are listened on and those that are dialled, is a Unix socket or of the
        loopback."""
        return all(map(is_local, [*self.config.agent_addresses, *self.config.client_addresses]))

    @property
    def keeps_clients_local(self) -> bool:
        return all(map(is_local, self.config.client_addresses))

    @property
    def takes_any_agent(self) -> bool:
        return self.config.secret_key is None and not all(map(is_local, self.config.agent_addresses))

    @staticmethod
    def make_keys(folder: Path) -> str:
        return make_keys(folder)

    async def _open(self, end: ZeromqHub | ZeromqPort) -> None:
        try:
            address = end.open()
        except BaseException:
            await end.abandon()
            raise
        self._ends = [*(each for each in self._ends if not each.guard.closed), end]
        if address:
            self._bound[end.plane] = address
        directory = self.config.agent_addresses if end.plane == "agent" else self.config.client_addresses
        self._settings |= {
            f"{end.plane}_listens_on" if address else f"{end.plane}_connects_to": address or ", ".join(directory),
            "encoding": "msgpack",
            "security": "null" if end.curve is None else "curve",
            **self.config.bounds(),
            "connection_timeout_ms": str(end.timeout_ms),
            "libzmq": zmq.zmq_version(),
        }
        end.guard.open()
