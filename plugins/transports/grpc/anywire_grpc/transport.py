"""The transport itself: settings in, hubs and ports out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import google.protobuf
import grpc
from google.protobuf.internal import api_implementation

from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire_grpc.config import MAX_MESSAGE_BYTES, GrpcConfig
from anywire_grpc.hub import GrpcHub
from anywire_grpc.library import PINGS_PER_LEASE
from anywire_grpc.port import GrpcPort


class GrpcTransport(Transport):
    """One bidirectional stream per link over HTTP/2, protobuf, optionally with a token and TLS.

    ``liveliness`` is ``connection``: a killed peer is noticed as soon as the kernel closes its connection, one that is
    paused or cut off by gRPC's keepalive; a process whose event loop hangs while gRPC's threads live, by the registry.
    """

    name: ClassVar[str] = "grpc"
    Config = GrpcConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        liveliness="connection", discovery="directory", max_message_bytes=MAX_MESSAGE_BYTES
    )
    config: GrpcConfig

    def __init__(self, config: GrpcConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = GrpcHub(self.config, hub, plane, sink)
        self._note(end, await end.open())
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = GrpcPort(self.config, info, plane, sink)
        self._note(end, await end.open())
        return end

    def effective_settings(self) -> Mapping[str, str]:
        return self._settings

    def _note(self, end: GrpcHub | GrpcPort, address: str) -> None:
        self._settings |= {
            f"{end.plane}_listens_on" if address else f"{end.plane}_connects_to": address or ", ".join(end.addresses),
            "encoding": "protobuf",
            "security": self._security(),
            "max_message_bytes": str(self.config.max_message_bytes),
            "keepalive_ms": str(end.silence_ms // PINGS_PER_LEASE),
            "silence_ms": str(end.silence_ms),
            "grpcio": grpc.__version__,
            "protobuf": f"{google.protobuf.__version__} ({api_implementation.Type()})",
        }

    def _security(self) -> str:
        used = ("token", self.config.token is not None), ("tls", self.config.secured)
        return " and ".join(name for name, is_used in used if is_used) or "none"
