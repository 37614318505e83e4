"""The transport itself: settings in, hubs and ports out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import aiohttp

from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Lan, Plane, Transport
from anywire.transport_tools import (
    EndCertificate,
    LinkProofs,
    encryption_told,
    findings,
    free_addresses,
    lan_addresses,
    meeting_addresses,
    new_end_certificate,
)
from anywire_http.config import HttpConfig, is_local
from anywire_http.hub import HttpHub
from anywire_http.port import HttpPort
from anywire_http.server import TokenCheck
from anywire_http.wire import Fault, encode

UNCHECKED = (
    "clients of this gateway need keys, so agents register here only with a token or an identity: set "
    "transports.http.token at both ends, or identity.admitted at the orchestrator"
)


class HttpTransport(Transport):
    """One POST per task over kept-alive HTTP/1.1 connections, answers streamed as JSON lines.

    ``liveliness`` is ``connection``: each link is a response that lives as long as both ends do; a hang is noticed by
    the registry's lease.
    """

    name: ClassVar[str] = "http"
    Config = HttpConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        liveliness="connection", discovery="directory", binds_identity=True
    )
    config: HttpConfig

    def __init__(self, config: HttpConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}
        self._bound: dict[Plane, str] = {}
        self._hub: HttpHub | None = None
        self._open: list[HttpHub | HttpPort] = []
        self._tokens = TokenCheck(config.token, "the gateway")

    @classmethod
    def free_options(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return free_addresses(HttpConfig, options)

    @classmethod
    def lan_options(cls, options: Mapping[str, Any], lan: Lan) -> Mapping[str, Any]:
        found = lan_addresses(HttpConfig, options, lan.host)
        return found if not lan.secret or "token" in options else found | {"token": lan.secret}

    def meeting_options(self, host: str) -> Mapping[str, Any]:
        token = self.config.token
        found = meeting_addresses(self._bound, host) | ({"token": token.get_secret_value()} if token else {})
        return found | encryption_told(self.config.encrypted, self.identity is not None, self._bound)

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = HttpHub(self.config, hub, plane, sink, LinkProofs.of(self, plane), self._certificate())
        await end.open()
        if plane == "agent":
            self._hub = end
            self._bound[plane] = end.url
        self._note(plane, "hub", end.url or ", ".join(self.config.client_addresses))
        self._remember(end)
        end.guard.open()
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = HttpPort(self.config, info, plane, sink, LinkProofs.of(self, plane), self._certificate())
        await end.open()
        if plane == "client":
            self._bound[plane] = end.url
        self._note(plane, "agent", end.url)
        self._remember(end)
        end.guard.open()
        return end

    async def register_agent(
        self, data: bytes, authorization: str, peer: str, *, checked: bool = False
    ) -> tuple[int, bytes]:
        """Take a registration that came another way, such as a gateway's ``POST …/agents/register``.

        ``data`` is the request's body, ``authorization`` its header of that name, ``peer`` its sender for the log.
        With ``checked`` none is taken where neither a token nor admitted identities say who may register. Returns the
        status and the JSON body of the answer; never raises.
        """
        if checked and self.config.token is None and self.admits is None:
            return 401, encode(Fault(UNCHECKED))
        refusal = self._tokens.refusal(authorization, peer)
        if refusal:
            return 401, encode(Fault(refusal))
        if self._hub is None or self._hub.guard.closed:
            return 503, encode(Fault("no hub is open here that agents could register with"))
        return await self._hub.register(data, peer)

    def findings(self) -> list[tuple[str, str]]:
        """Whom what is open now cannot be linked to, each with what would do; `anywire doctor` tells."""
        return findings(self._open, self.name)

    def effective_settings(self) -> Mapping[str, str]:
        return self._settings

    @property
    def is_local(self) -> bool:
        """True when every address, those that are listened on and those that are dialled, is of the loopback."""
        config = self.config
        own = [each for each in (config.agent_listen, config.agent_url) if each]
        return all(map(is_local, [*config.agent_addresses, *config.client_addresses, *own]))

    @property
    def keeps_clients_local(self) -> bool:
        return all(map(is_local, self.config.client_addresses))

    @property
    def takes_any_agent(self) -> bool:
        return self.config.token is None and not all(map(is_local, self.config.agent_addresses))

    @property
    def _encrypted(self) -> bool:
        """Whether ends make certificates of their own."""
        return self.config.encrypted or self.identity is not None

    def _certificate(self) -> EndCertificate | None:
        return new_end_certificate() if self._encrypted else None

    def _security(self) -> list[str]:
        used = ("token", self.config.token is not None), ("tls", self._encrypted)
        return [name for name, is_used in used if is_used]

    def _remember(self, end: HttpHub | HttpPort) -> None:
        self._open = [*(each for each in self._open if not each.guard.closed), end]

    def _note(self, plane: Plane, role: str, address: str) -> None:
        self._settings |= {
            f"{plane}_plane_{role}": address,
            "encoding": "json",
            "http": "1.1, keep-alive, TCP_NODELAY",
            "security": " and ".join(self._security()) or "none",
            **self.config.bounds(),
            "aiohttp": aiohttp.__version__,
        }
