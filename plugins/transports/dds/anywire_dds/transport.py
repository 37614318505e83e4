"""The DDS transport: `Transport` on Eclipse Cyclone DDS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pydantic

from anywire.messages import AgentInfo, HubInfo
from anywire.observer import Observer, ObserverInfo, ObserverSink
from anywire.transport import (
    AgentPort,
    AgentSink,
    Candidacy,
    CandidateSink,
    Capabilities,
    Hub,
    HubSink,
    Plane,
    Transport,
)
from anywire_dds.agent_port import DdsAgentPort
from anywire_dds.config import DdsConfig
from anywire_dds.hub import DdsHub
from anywire_dds.observable_hub import ObservableHub
from anywire_dds.observer import DdsObserver
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
        self._open: list[DdsHub | DdsAgentPort | DdsObserver] = []

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        opened = (ObservableHub if plane == "agent" else DdsHub)(self.config, hub, plane, sink)
        self._remember(opened)
        return opened

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        opened = DdsAgentPort(self.config, info, plane, sink)
        self._remember(opened)
        return opened

    async def stand(self, hub: HubInfo, strength: int, sink: CandidateSink) -> Candidacy:
        return DdsCandidacy(self.config, hub, strength, sink)

    async def open_observer(self, info: ObserverInfo, sink: ObserverSink) -> Observer:
        opened = DdsObserver(self.config, info, sink)
        self._remember(opened)
        return opened

    def effective_settings(self) -> Mapping[str, str]:
        for each in self._open:
            self._settings.update(each.endpoints.settings())
        return dict(self._settings)

    def findings(self) -> list[tuple[str, str]]:
        """What is not as it should be in what is open now, each with what would do; `anywire doctor` tells."""
        return [finding for each in self._open for finding in each.endpoints.findings()]

    def _remember(self, opened: DdsHub | DdsAgentPort | DdsObserver) -> None:
        opened.start_soon()
        self.effective_settings()
        self._open = [*(each for each in self._open if not each.closing), opened]
