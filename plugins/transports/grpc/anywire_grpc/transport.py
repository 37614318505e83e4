"""The transport itself: settings in, hubs and ports out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import google.protobuf
import grpc
from google.protobuf.internal import api_implementation

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
from anywire_grpc.config import GrpcConfig, is_local
from anywire_grpc.hub import GrpcHub
from anywire_grpc.port import GrpcPort


class GrpcTransport(Transport):
    """One bidirectional stream per link over HTTP/2, protobuf, optionally with a token and TLS.

    ``liveliness`` is ``connection``: a killed peer is noticed when its kernel closes the connection, one that is cut
    off when its machine acknowledges nothing for `End.unacknowledged_ms`. An agent that hangs is noticed by the
    registry's lease; a hub that hangs keeps its links.
    """

    name: ClassVar[str] = "grpc"
    Config = GrpcConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        liveliness="connection", discovery="directory", binds_identity=True
    )
    config: GrpcConfig

    def __init__(self, config: GrpcConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}
        self._open: list[GrpcHub | GrpcPort] = []
        self._bound: dict[Plane, str] = {}

    @classmethod
    def free_options(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return free_addresses(GrpcConfig, options)

    @classmethod
    def lan_options(cls, options: Mapping[str, Any], lan: Lan) -> Mapping[str, Any]:
        found = lan_addresses(GrpcConfig, options, lan.host)
        return found if not lan.secret or "token" in options or "tls_ca" in options else found | {"token": lan.secret}

    def meeting_options(self, host: str) -> Mapping[str, Any]:
        token = self.config.token
        found = meeting_addresses(self._bound, host) | ({"token": token.get_secret_value()} if token else {})
        if self.config.secured:
            return found
        return found | encryption_told(self.config.encrypted, self.identity is not None, self._bound)

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = GrpcHub(self.config, hub, plane, sink, LinkProofs.of(self, plane))
        self._note(end, await end.open())
        end.guard.open()
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = GrpcPort(self.config, info, plane, sink, LinkProofs.of(self, plane))
        self._note(end, await end.open())
        end.guard.open()
        return end

    def findings(self) -> list[tuple[str, str]]:
        """Whom what is open now cannot be linked to, each with what would do; `anywire doctor` tells."""
        return findings(self._open, self.name)

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
        config = self.config
        asks = config.token is not None or (config.secured and bool(config.tls_ca))
        return not asks and not all(map(is_local, config.agent_addresses))

    @property
    def _encrypted(self) -> bool:
        """Whether ends make certificates of their own."""
        return not self.config.secured and (self.config.encrypted or self.identity is not None)

    def _note(self, end: GrpcHub | GrpcPort, address: str) -> None:
        self._open = [*(each for each in self._open if not each.guard.closed), end]
        if address:
            self._bound[end.plane] = address
        self._settings |= {
            f"{end.plane}_listens_on" if address else f"{end.plane}_connects_to": address or ", ".join(end.addresses),
            "encoding": "protobuf",
            "security": self._security(),
            **self.config.bounds(),
            "tcp_user_timeout_ms": str(end.unacknowledged_ms),
            "grpcio": grpc.__version__,
            "protobuf": f"{google.protobuf.__version__} ({api_implementation.Type()})",
        }

    def _security(self) -> str:
        used = ("token", self.config.token is not None), ("tls", self.config.secured or self._encrypted)
        return " and ".join(name for name, is_used in used if is_used) or "none"
