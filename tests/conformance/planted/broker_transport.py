"""A transport over the test broker, of liveliness ``native``: faults of brokers and of leases are planted in it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from itertools import count
from typing import Any, ClassVar

from tests.conformance.planted.broker import LIMIT, Packet, decode, framed
from tests.conformance.planted.broker_channel import CODEC, BrokerChannel, Gone, NewChannel, new_awake_time

from anywire.errors import TransportError, TransportUnavailable
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire.transport_tools import BoundedOptions, ChannelHub, ChannelPort, Unpacker, keep_dialling


class BrokerConfig(BoundedOptions):
    port: int


class BrokerConnection(asyncio.Protocol):
    """One end's connection to the broker, and its channels. A hub makes one to each agent that it sees."""

    def __init__(self, config: BrokerConfig, plane: Plane, end: Any, new_channel: NewChannel = BrokerChannel) -> None:
        self.config, self.end, self.awake = config, end, new_awake_time()
        self._role = "hub" if isinstance(end, ChannelHub) else "agent"
        self._peers = f"{plane}.{'agent' if self._role == 'hub' else 'hub'}."
        self._plane, self._new_channel = plane, new_channel
        self._channels: dict[str, BrokerChannel] = {}
        self._numbers = count(1)
        self._transport: Any = None
        self._unpacker = Unpacker(LIMIT)
        self._over: asyncio.Future[None]
        self._dialling: asyncio.Task[None] | None = None
        self.reconnects = True

    async def open(self) -> None:
        try:
            await self.connect()
        except OSError as error:
            raise TransportUnavailable(
                f"no broker at 127.0.0.1:{self.config.port}: {error}; start one, or set transports.broker.port"
            ) from error
        self._dialling = asyncio.get_running_loop().create_task(self._stay_connected())

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.config.port)
        self._transport.write(framed(Packet(f"{self._plane}.{self._role}.{secrets.token_hex(6)}")))

    async def _stay_connected(self) -> None:
        async def attempt() -> bool:
            if self._over.done():
                await self.connect()
            await asyncio.shield(self._over)
            return True

        if self.reconnects:
            await keep_dialling(attempt, "the broker")

    async def close(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)
        if self._transport is None:
            return
        self._transport.close()
        await asyncio.wait([self._over], timeout=1.0)

    def write(self, name: str, number: int, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(Packet(name, number, data)))

    def look(self, name: str) -> None:
        """A hub that has no channel to this agent makes one."""
        old = self._channels.get(name)
        if self._role == "hub" and (old is None or old.over) and not self.end.guard.closed:
            self._channels[name] = channel = self._new_channel(self, name, next(self._numbers))
            channel.ended.add_done_callback(lambda _: self._forget(name, channel))
            self.end.send_hello(channel)

    def _forget(self, name: str, channel: BrokerChannel) -> None:
        if self._channels.get(name) is channel:
            del self._channels[name]

    def connection_made(self, transport: Any) -> None:
        self._transport, self._unpacker = transport, Unpacker(LIMIT)
        self._over = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        for each in self._unpacker.feed(data):
            packet = decode(each)
            if packet.name.startswith(self._peers):
                self._received(packet)

    def connection_lost(self, exc: Exception | None) -> None:
        for channel in list(self._channels.values()):
            channel.abort(f"the broker at 127.0.0.1:{self.config.port} is gone")
        if not self._over.done():
            self._over.set_result(None)

    def _received(self, packet: Packet) -> None:
        channel = self._channels.get(packet.name)
        if packet.here is not None:
            if packet.here:
                self.look(packet.name)
            elif channel is not None:
                channel.abort("the broker says that it is gone")
        elif channel is not None and channel.number == packet.channel and not channel.over:
            channel.received(packet.data)
        elif self._role == "hub":
            self.look(packet.name)
        else:
            self._of_another_channel(packet, channel)

    def _of_another_channel(self, packet: Packet, old: BrokerChannel | None) -> None:
        try:
            begins = isinstance(CODEC.decode(packet.data), HubInfo)
        except TransportError:
            return
        if not begins:
            self.write(packet.name, packet.channel, CODEC.encode(Gone()))
            return
        if old is not None:
            old.abort("the hub has begun anew")
        self._channels[packet.name] = channel = self._new_channel(self, packet.name, packet.channel)
        channel.ended.add_done_callback(lambda _: self._forget(packet.name, channel))
        channel.received(packet.data)


class BrokerHub(ChannelHub):
    connection: BrokerConnection

    async def close(self) -> None:
        await super().close()
        await self.connection.close()


class BrokerPort(ChannelPort):
    connection: BrokerConnection

    async def close(self) -> None:
        await super().close()
        await self.connection.close()


class BrokerTransport(Transport):
    name: ClassVar[str] = "broker"
    Config = BrokerConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="native", discovery="brokered")
    config: BrokerConfig
    new_channel: ClassVar[Any] = BrokerChannel

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = BrokerHub(hub, sink)
        await self._open(end, plane)
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = BrokerPort(info, sink)
        await self._open(end, plane)
        return end

    async def _open(self, end: Any, plane: Plane) -> None:
        end.connection = BrokerConnection(self.config, plane, end, self.new_channel)
        await self.open_connection(end.connection)
        self._settings |= self.config.bounds() | {"broker": f"127.0.0.1:{self.config.port}"}
        end.guard.open()

    async def open_connection(self, connection: BrokerConnection) -> None:
        await connection.open()

    def effective_settings(self) -> Mapping[str, str]:
        return self._settings
