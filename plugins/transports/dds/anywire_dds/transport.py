"""The DDS transport: `Transport` on Eclipse Cyclone DDS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import pydantic

from anywire import transport_tools
from anywire.fleet_names import private_fleet
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import (
    AgentPort,
    AgentSink,
    Candidacy,
    CandidateSink,
    Capabilities,
    Hub,
    HubSink,
    Lan,
    Plane,
    Transport,
)
from anywire_dds.agent_port import DdsAgentPort
from anywire_dds.config import AUTO, DdsConfig, is_loopback
from anywire_dds.free_domain import free_domain
from anywire_dds.hub import DdsHub
from anywire_dds.standby import DdsCandidacy


class DdsTransport(Transport):
    """Native discovery and liveliness: no address of anybody, no third process, death noticed after one lease to two.

    All hubs and agents of a process in one domain share one set of sockets and threads, and those with the same lease
    one DDS participant.
    """

    name: ClassVar[str] = "dds"
    Config: ClassVar[type[pydantic.BaseModel]] = DdsConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        liveliness="native", discovery="native", max_message_bytes=DdsConfig().max_message_bytes
    )
    config: DdsConfig

    def __init__(self, config: DdsConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}
        self._open: list[DdsHub | DdsAgentPort] = []

    @classmethod
    def free_options(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if options.get("fleet"):
            return {}
        return {"fleet": private_fleet()} | ({} if "domain" in options else {"domain": free_domain()})

    @classmethod
    def lan_options(cls, options: Mapping[str, Any], lan: Lan) -> Mapping[str, Any]:
        found = {"interface": AUTO, "fleet": lan.fleet}
        return {name: value for name, value in found.items() if name not in options}

    def meeting_options(self, host: str) -> Mapping[str, Any]:
        config = self.config
        found: dict[str, Any] = {"domain": config.domain, "fleet": config.fleet_name}
        if self.is_local or transport_tools.is_loopback(host):
            return found | {"interface": config.interface}
        found["interface"] = AUTO
        return found if config.multicast in ("auto", "on") else found | {"multicast": config.multicast, "peers": [host]}

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        opened = DdsHub(self.config, hub, plane, sink)
        self._remember(opened)
        return opened

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        opened = DdsAgentPort(self.config, info, plane, sink)
        self._remember(opened)
        return opened

    async def stand(self, hub: HubInfo, strength: int, sink: CandidateSink) -> Candidacy:
        return DdsCandidacy(self.config, hub, strength, sink)

    @property
    def is_local(self) -> bool:
        # CYCLONEDDS_URI may name further interfaces.
        return is_loopback(self.config.interface) and not os.environ.get("CYCLONEDDS_URI")

    def effective_settings(self) -> Mapping[str, str]:
        for each in self._open:
            self._settings.update(each.endpoints.settings())
        return dict(self._settings)

    def findings(self) -> list[tuple[str, str]]:
        """What is not as it should be in what is open now, each with what would do; `anywire doctor` tells."""
        return [finding for each in self._open for finding in each.findings()]

    def _remember(self, opened: DdsHub | DdsAgentPort) -> None:
        opened.start_soon()
        self.effective_settings()
        self._open = [*(each for each in self._open if not each.closing), opened]
