"""The DDS transport: `Transport` on Eclipse Cyclone DDS."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec
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
from anywire_dds.config import AUTO, DdsConfig, is_local
from anywire_dds.free_domain import free_domain
from anywire_dds.hub import DdsHub
from anywire_dds.standby import DdsCandidacy

if TYPE_CHECKING:
    from anywire_dds.end_key import EndKey

_Info = TypeVar("_Info", AgentInfo, HubInfo)


class DdsTransport(Transport):
    """Native discovery and liveliness: no address of anybody, no third process, death noticed after one lease to two.

    All hubs and agents of a process in one domain share one set of sockets and threads, and those with the same lease
    one DDS participant.
    """

    name: ClassVar[str] = "dds"
    Config: ClassVar[type[pydantic.BaseModel]] = DdsConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        liveliness="native",
        discovery="native",
        max_message_bytes=DdsConfig().max_message_bytes,
        binds_identity=True,
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
        hub, key = self._with_key(hub, plane)
        opened = DdsHub(self.config, hub, plane, sink, key, self._admits(plane))
        self._remember(opened)
        return opened

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        info, key = self._with_key(info, plane)
        opened = DdsAgentPort(self.config, info, plane, sink, key, self._admits(plane))
        self._remember(opened)
        return opened

    async def stand(self, hub: HubInfo, strength: int, sink: CandidateSink) -> Candidacy:
        return DdsCandidacy(self.config, hub, strength, sink)

    @property
    def is_local(self) -> bool:
        return is_local(self.config.interface)

    @property
    def takes_any_agent(self) -> bool:
        return self.config.security is None and not self.is_local

    def effective_settings(self) -> Mapping[str, str]:
        for each in self._open:
            self._settings.update(each.endpoints.settings())
        return dict(self._settings)

    def findings(self) -> list[tuple[str, str]]:
        """What is not as it should be in what is open now, each with what would do; `anywire doctor` tells."""
        return [finding for each in self._open for finding in each.findings()]

    def _with_key(self, info: _Info, plane: Plane) -> tuple[_Info, EndKey | None]:
        """Keys for an end of this transport's identity, and what it says of itself with the proof that names them."""
        if self.identity is None:
            return info, None
        from anywire_dds.end_key import EndKey

        key = EndKey(plane, info, self.identity)
        return msgspec.structs.replace(info, proof=key.proof), key

    def _admits(self, plane: Plane) -> Callable[[AgentInfo | HubInfo], str] | None:
        return functools.partial(self.admits, plane) if self.admits is not None else None

    def _remember(self, opened: DdsHub | DdsAgentPort) -> None:
        opened.start_soon()
        self.effective_settings()
        self._open = [*(each for each in self._open if not each.closing), opened]
