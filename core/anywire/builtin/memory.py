"""The reference transport: hubs and agents of one process, connected by their event loop.

It keeps the whole contract (order, bounds, incarnations, several hubs and agents, both planes), so it is what a
transport author compares with and what tests use where the wire does not matter. It is `anywire.transport_tools`
with channels that lead from one object to another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import pydantic

from anywire.errors import TransportError
from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire.secrecy import without_secrets
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire.transport_tools import (
    BoundedOptions,
    BufferedChannel,
    Channel,
    ChannelHub,
    ChannelOwner,
    ChannelPort,
    Goodbye,
    MayCongest,
    check_payload,
)

log = logging.getLogger(__name__)

ENVELOPE = 256
"""Bytes counted for what a message holds beside its payload: nothing is encoded here that could be measured."""

BROKEN = Goodbye("the peer has crashed")
"""What a channel finds in place of a goodbye when the other end was aborted."""


class MemoryConfig(BoundedOptions):
    network: str = pydantic.Field(
        default="default", description="Name of the network, whose hubs and agents see each other."
    )


class MemoryChannel(BufferedChannel):
    """One direction's writer and the other's reader. All that waits is delivered in one callback of the loop."""

    other: MemoryChannel

    def __init__(self, owner: ChannelOwner, config: MemoryConfig, peer: str) -> None:
        super().__init__(config.buffer_bytes, peer)
        self.owner, self.max_message_bytes = owner, config.max_message_bytes
        self._limit = config.max_message_bytes
        """The lesser one of both ends, once they are connected."""
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[tuple[Any, int]] = deque()
        self._scheduled = False

    def send(self, message: Any) -> None:
        if self._over:
            return
        size, room = 0, self._room
        if isinstance(message, MayCongest):
            size = ENVELOPE + check_payload(message, self._limit)
            room.admit(size)
            room.set_waiting(room.waiting + size)
        self.other.put(message, size)

    def close(self, reason: str, *, refused: bool = False) -> None:
        if not self._over:
            self.other.put(Goodbye(reason, refused), 0)
            self._end(reason)

    def abort(self, reason: str) -> None:
        if not self._over:
            self.other.put(BROKEN, 0)
            self._end(reason)

    def put(self, message: Any, size: int) -> None:
        """Deliver a message to this channel's owner in a later turn of the loop."""
        if self._over:
            return
        self._inbox.append((message, size))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        sent, inbox, received = self.other._room, self._inbox, self.owner.channel_received
        for _ in range(len(inbox)):
            message, size = inbox.popleft()
            if size:
                sent.set_waiting(sent.waiting - size)
            try:
                received(self, message)
            except TransportError as error:
                log.warning("the connection to %s is ended: %s", self._peer, error)
                self.close(str(error))
            except Exception as error:
                log.exception("the connection to %s is ended: a message was not handled", self._peer)
                self.close(without_secrets(f"a message was not handled: {error!r}"))
            if self._over:
                return
        if self._inbox and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _end(self, reason: str) -> None:
        self._over = True
        self._inbox.clear()
        self._room.close()
        self.owner.channel_ended(self, reason)
        self._ended.set_result(None)


class _Network:
    """Who is there; each hub has a channel to each agent of its plane."""

    def __init__(self) -> None:
        self._hubs: dict[MemoryHub, None] = {}
        self._ports: dict[MemoryPort, None] = {}

    def add_hub(self, hub: MemoryHub) -> None:
        self._hubs[hub] = None
        for port in list(self._ports):
            self._connect(hub, port)

    def add_port(self, port: MemoryPort) -> None:
        self._ports[port] = None
        for hub in list(self._hubs):
            self._connect(hub, port)

    def remove_hub(self, hub: MemoryHub) -> None:
        self._hubs.pop(hub, None)
        # Other lives of it, which were refused while it was there, may join now.
        for other in [each for each in self._hubs if each.info.hub_id == hub.info.hub_id]:
            for port in list(self._ports):
                if _leads_to(port.links.find(hub.info.hub_id), hub):
                    self._connect(other, port)

    def remove_port(self, port: MemoryPort) -> None:
        self._ports.pop(port, None)
        for other in [each for each in self._ports if each.info.agent_id == port.info.agent_id]:
            for hub in list(self._hubs):
                if _leads_to(hub.links.find(port.info.agent_id), port):
                    self._connect(hub, other)

    def _connect(self, hub: MemoryHub, port: MemoryPort) -> None:
        if hub.plane != port.plane:
            return
        down = MemoryChannel(hub, hub.transport.config, f"agent {port.info.agent_id}")
        up = MemoryChannel(port, port.transport.config, f"hub {hub.info.hub_id}")
        down.other, up.other = up, down
        down._limit = up._limit = min(down.max_message_bytes, up.max_message_bytes)
        hub.channel_opened(down)
        port.channel_opened(up)
        hub.send_hello(down)


def _leads_to(channel: Channel | None, end: MemoryHub | MemoryPort) -> bool:
    return isinstance(channel, MemoryChannel) and channel.other.owner is end


_networks: WeakValueDictionary[str, _Network] = WeakValueDictionary()


class MemoryHub(ChannelHub):
    def __init__(self, transport: MemoryTransport, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        super().__init__(info, sink)
        self.transport, self.plane = transport, plane

    async def close(self) -> None:
        self.guard.close()
        self.leave()
        await super().close()

    def leave(self) -> None:
        self.transport.network.remove_hub(self)


class MemoryPort(ChannelPort):
    def __init__(self, transport: MemoryTransport, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        super().__init__(info, sink)
        self.transport, self.plane = transport, plane
        self._announced = False

    def report(self, status: AgentStatus) -> None:
        super().report(status)
        if not self._announced and not self.guard.closed:
            self._announced = True
            self.transport.network.add_port(self)

    async def close(self) -> None:
        self.guard.close()
        self.leave()
        await super().close()

    def leave(self) -> None:
        self.transport.network.remove_port(self)


class MemoryTransport(Transport):
    name: ClassVar[str] = "memory"
    Config = MemoryConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="native", discovery="native", inter_process=False)
    config: MemoryConfig

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(config)
        self.network = _networks.setdefault(config.network, _Network())
        self._ends: list[MemoryHub | MemoryPort] = []

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = MemoryHub(self, hub, plane, sink)
        self._ends.append(end)
        self.network.add_hub(end)
        end.guard.open()
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = MemoryPort(self, info, plane, sink)
        self._ends.append(end)
        end.guard.open()
        return end

    def effective_settings(self) -> Mapping[str, str]:
        return {"network": self.config.network} | self.config.bounds() if self._ends else {}

    def crash(self) -> None:
        """End everything opened through this instance without a goodbye, as if its process had died; for tests."""
        for end in self._ends:
            end.guard.close()
            end.leave()
            for channel in list(end.channels):
                channel.abort("it has crashed")
