"""The transport itself: its two ends, and what it tells of itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from anywire.builtin.tcp.channel import TcpChannel
from anywire.builtin.tcp.config import TcpConfig, is_local
from anywire.builtin.tcp.meeting import Dialling, Listening
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire.transport_tools import Channel, ChannelHub, ChannelPort, free_addresses, meeting_addresses, option_of

log = logging.getLogger(__name__)

BY_ANOTHER_ADDRESS = "this peer is linked by another address already"


class TcpHub(ChannelHub):
    """Listens on the plane ``agent``, connects on the plane ``client``."""

    def __init__(self, config: TcpConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        super().__init__(info, sink)
        self.config, self.plane, self.listens = config, plane, plane == "agent"
        new_channel = partial(_channel, self, config, info.lease_ms, not self.listens)
        self.listening, self.dialling = Listening(new_channel), Dialling(new_channel, _until_ended)
        self.on_close = partial(_part, self)

    def channel_opened(self, channel: Channel) -> None:
        super().channel_opened(channel)
        self.send_hello(channel)

    def _join(self, channel: Channel, agent: AgentInfo) -> None:
        if _is_spare(self._links.find(agent.agent_id), channel, agent.incarnation):
            channel.close(BY_ANOTHER_ADDRESS)
        else:
            super()._join(channel, agent)


class TcpPort(ChannelPort):
    """Connects on the plane ``agent``, listens on the plane ``client``."""

    def __init__(self, config: TcpConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        super().__init__(info, sink)
        self.config, self.plane, self.listens = config, plane, plane == "client"
        new_channel = partial(_channel, self, config, info.lease_ms, not self.listens)
        self.listening, self.dialling = Listening(new_channel), Dialling(new_channel, _until_ended)
        self.on_close = partial(_part, self)

    def _hello(self, channel: Channel, hub: HubInfo) -> None:
        # One that has said hello will be the link: it counts as such.
        others = [each for each, info in self._hubs.items() if info.hub_id == hub.hub_id]
        if any(_is_spare(each, channel, hub.incarnation) for each in (None, *others)):
            channel.close(BY_ANOTHER_ADDRESS)
        else:
            super()._hello(channel, hub)


End = TcpHub | TcpPort


class TcpTransport(Transport):
    """Length-prefixed msgpack on TCP connections or Unix sockets, without encryption and without keys.

    ``liveliness`` is ``connection``: a killed peer is noticed as soon as the kernel closes its connection, a network
    that is away by the kernel too, after four leases; a process that hangs or is paused, by the registry.
    """

    name: ClassVar[str] = "tcp"
    Config = TcpConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="connection", discovery="directory")
    config: TcpConfig

    def __init__(self, config: TcpConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}
        self._bound: dict[Plane, str] = {}

    @classmethod
    def free_options(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return free_addresses(TcpConfig, options)

    def meeting_options(self, host: str) -> Mapping[str, Any]:
        return meeting_addresses(self._bound, host)

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
        return not all(map(is_local, self.config.agent_addresses))

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = TcpHub(self.config, hub, plane, sink)
        await self._open(end)
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = TcpPort(self.config, info, plane, sink)
        await self._open(end)
        return end

    def effective_settings(self) -> Mapping[str, str]:
        return self._settings

    async def _open(self, end: End) -> None:
        plane, addresses = end.plane, getattr(self.config, option_of(end.plane))
        if end.listens:
            await end.listening.open(self.config, plane)
            self._bound[plane] = bound = end.listening.address
            self._settings[f"{plane}_listens_on"] = bound
            if not is_local(bound):
                log.warning(
                    "whoever reaches %s reads what is sent there and may join: transport tcp has neither encryption "
                    "nor keys. Use zeromq, http, grpc or dds for other machines, or a loopback address "
                    "(transports.tcp.%s)",
                    bound,
                    option_of(plane),
                )
        else:
            self._settings[f"{plane}_connects_to"] = ", ".join(addresses)
            end.dialling.open(addresses)
        self._settings |= {"encoding": "msgpack", "security": "none", **self.config.bounds()}
        end.guard.open()


def _channel(end: End, config: TcpConfig, lease_ms: int, is_dialled: bool, peer: str) -> TcpChannel:
    return TcpChannel(
        end,
        lease_ms,
        is_dialled,
        max_message_bytes=config.max_message_bytes,
        buffer_bytes=config.buffer_bytes,
        peer=peer,
    )


async def _until_ended(channel: TcpChannel) -> bool:
    await asyncio.shield(channel.ended)
    return channel.linked


async def _part(end: End) -> None:
    await end.listening.close()
    await end.dialling.close()


def _is_spare(linked: Channel | None, channel: Channel, incarnation: int) -> bool:
    """Whether ``channel`` leads to a life of a peer that is linked by another address: two addresses may lead to one
    end. What is learnt of its peer is kept at the channel."""
    assert isinstance(channel, TcpChannel)
    channel.incarnation = incarnation
    if not isinstance(linked, TcpChannel) or linked is channel or linked.over:
        return False
    both_dialled = linked.is_dialled and channel.is_dialled and linked.peer != channel.peer
    return both_dialled and linked.incarnation == incarnation
