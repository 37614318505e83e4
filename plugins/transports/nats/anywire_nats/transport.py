"""The transport itself: settings in, hubs and ports out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from anywire.fleet_names import private_fleet
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Lan, Plane, Transport
from anywire.transport_tools import is_loopback
from anywire_nats.config import NatsConfig, is_local
from anywire_nats.ends import NatsHub, NatsPort
from anywire_nats.keys import make_keys


class NatsTransport(Transport):
    """Packets over the subjects of a NATS server.

    ``liveliness`` is ``native``: links ping each other through the server, so whatever silences a peer is noticed by
    its lease. A peer whose process has ended is noticed sooner, because the server says that it is gone.
    """

    name: ClassVar[str] = "nats"
    Config = NatsConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="native", discovery="brokered")
    config: NatsConfig

    def __init__(self, config: NatsConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}
        self._open: list[NatsHub | NatsPort] = []

    @classmethod
    def free_options(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {} if options.get("fleet") else {"fleet": private_fleet()}

    @classmethod
    def lan_options(cls, options: Mapping[str, Any], lan: Lan) -> Mapping[str, Any]:
        return {} if options.get("fleet") else {"fleet": lan.fleet}

    def meeting_options(self, host: str) -> Mapping[str, Any]:
        config = self.config
        servers = [_reached(each, host) for each in config.servers]
        found: dict[str, Any] = {"servers": servers, "fleet": config.fleet_name}
        if config.local and is_loopback(host):
            found["local"] = True
        if config.token is not None:  # which is the same for all; users may not be
            found["token"] = config.token.get_secret_value()
        return found

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = NatsHub(self.config, hub, plane, sink)
        await self._begin(end)
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = NatsPort(self.config, info, plane, sink)
        await self._begin(end)
        return end

    def effective_settings(self) -> Mapping[str, str]:
        for end in self._open:
            self._settings |= end.meeting.settings()
        return self._settings

    def findings(self) -> list[tuple[str, str]]:
        """What is not as it should be in what is open now, each with what would do; `anywire doctor` tells."""
        return [each for end in self._open if not end.guard.closed for each in end.meeting.findings()]

    @property
    def is_local(self) -> bool:
        """What the user says of the servers: see the option ``local``."""
        return self.config.local

    @property
    def takes_any_agent(self) -> bool:
        return not (self.config.local or self.config.asks_who)

    @staticmethod
    def make_keys(folder: Path) -> str:
        return make_keys(folder)

    async def _begin(self, end: NatsHub | NatsPort) -> None:
        await end.meeting.open()
        self._open = [*(each for each in self._open if not each.guard.closed), end]
        self._settings |= {"fleet": self.config.fleet_name, "encoding": "msgpack", **self.config.bounds()}
        end.guard.open()


def _reached(server: str, host: str) -> str:
    """The address by which others, that reach this machine by ``host``, reach that server."""
    if not is_local(server):
        return server
    parts = urlsplit(server)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}"
