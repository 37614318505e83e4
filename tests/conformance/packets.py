"""A transport over datagrams that loses some of them, for the tests: packets between ports of loopback.

Every end writes a file into a directory, named for its plane, role and port. Hubs dial; an agent that comes later
knocks.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from anywire.clock import SystemClock
from anywire.hookspecs import hookimpl
from anywire.identity import new_incarnation
from anywire.lease import AwakeTime
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire.transport_tools import BoundedOptions, Channel, ChannelHub, ChannelPort, Codec, PacketPeer

CODEC = Codec()
KNOCK = b"knock"
OTHER = {"hub": "agent", "agent": "hub"}


class PacketsConfig(BoundedOptions):
    directory: Path
    lost: float = 0.0
    """Part of the packets that the wire loses."""


class Ports(asyncio.DatagramProtocol):
    def __init__(self, end: Any, config: PacketsConfig, plane: Plane, role: str, lease: float) -> None:
        self.end, self.config, self.prefix = end, config, f"{plane}.{OTHER[role]}."
        self.name, self.dials, self.lease = f"{plane}.{role}.", role == "hub", lease
        self.awake = AwakeTime(SystemClock())
        self.peers: dict[int, PacketPeer] = {}
        self.transport: asyncio.DatagramTransport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        (self.config.directory / f"{self.name}{self.transport.get_extra_info('sockname')[1]}").touch()
        for path in self.config.directory.glob(f"{self.prefix}*"):
            port = int(path.name.rsplit(".", 1)[1])
            if self.dials:
                self.peer(port)
            else:
                self.transport.sendto(KNOCK, ("127.0.0.1", port))

    def peer(self, port: int) -> PacketPeer:
        if port not in self.peers:
            self.peers[port] = PacketPeer(
                self.end,
                CODEC,
                self._sender(port),
                session=new_incarnation(),
                lease=self.lease,
                awake=self.awake,
                dial=self.dials,
                on_idle=lambda: self.forget_the_dead(port),
                packet_bytes=16_000,
                max_message_bytes=self.config.max_message_bytes,
                buffer_bytes=self.config.buffer_bytes,
                peer=f"port {port}",
            )
        return self.peers[port]

    def forget_the_dead(self, port: int) -> None:
        """One that is to be dialled is kept for as long as its file is there."""
        if not self.dials or not (self.config.directory / f"{self.prefix}{port}").exists():
            self.peers.pop(port).close()

    def _sender(self, port: int) -> Callable[[bytes], None]:
        def send(packet: bytes) -> None:
            if random.random() >= self.config.lost and not self.transport.is_closing():
                self.transport.sendto(packet, ("127.0.0.1", port))

        return send

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        peer = self.peer(addr[1])
        if data != KNOCK:
            peer.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def error_received(self, exc: Exception) -> None:
        pass  # a port that nobody listens at: silence says it as well

    async def leave(self) -> None:
        (self.config.directory / f"{self.name}{self.transport.get_extra_info('sockname')[1]}").unlink(missing_ok=True)

    async def close(self) -> None:
        for peer in self.peers.values():
            peer.close()
        self.transport.close()
        await self.closed


class PacketsHub(ChannelHub):
    ports: Ports

    def channel_opened(self, channel: Channel) -> None:
        super().channel_opened(channel)
        self.send_hello(channel)

    async def close(self) -> None:
        await super().close()
        await self.ports.close()


class PacketsPort(ChannelPort):
    ports: Ports

    async def close(self) -> None:
        await super().close()
        await self.ports.close()


class PacketsTransport(Transport):
    name: ClassVar[str] = "packets"
    Config = PacketsConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="native", discovery="native")
    config: PacketsConfig

    def __init__(self, config: PacketsConfig) -> None:
        super().__init__(config)
        self._opened = False

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = PacketsHub(hub, sink)
        await self._open(end, Ports(end, self.config, plane, "hub", hub.lease_ms / 1000))
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = PacketsPort(info, sink)
        await self._open(end, Ports(end, self.config, plane, "agent", info.lease_ms / 1000))
        return end

    async def _open(self, end: PacketsHub | PacketsPort, ports: Ports) -> None:
        await ports.open()
        self._opened = True
        end.ports, end.on_close = ports, ports.leave
        end.guard.open()

    def effective_settings(self) -> Mapping[str, str]:
        return self.config.bounds() if self._opened else {}


@hookimpl
def anywire_register(kind: str) -> dict[str, Any] | None:
    return {"packets": PacketsTransport} if kind == "transports" else None
