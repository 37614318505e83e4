"""A broker for tests: it tells every client who is there, and passes messages on between two of them."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

from anywire.transport_tools import Unpacker, frame

LIMIT = 128 * 1024 * 1024


class Packet(msgspec.Struct, frozen=True, array_like=True):
    """``name`` is where it goes, or where it came from. The broker's own have ``here``: who came or went."""

    name: str
    channel: int = 0
    data: bytes = b""
    here: bool | None = None


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Packet).decode


def framed(packet: Packet) -> bytes:
    return frame(encode(packet))


class _Client(asyncio.Protocol):
    def __init__(self, broker: Broker) -> None:
        self.name = ""
        self.transport: Any = None
        self._broker, self._unpacker = broker, Unpacker(LIMIT)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._broker.connected.add(self)

    def data_received(self, data: bytes) -> None:
        for each in self._unpacker.feed(data):
            packet = decode(each)
            if self.name:
                self._broker.forward(self, packet)
            else:
                self._broker.enter(self, packet.name)

    def connection_lost(self, exc: Exception | None) -> None:
        self._broker.connected.discard(self)
        self._broker.leave(self)


class Broker:
    """The fixture ``companions``: `stop` ends it as a crash would, `restart` runs it again at the same port."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.connected: set[_Client] = set()
        self._clients: dict[str, _Client] = {}
        self._server: asyncio.Server | None = None

    async def restart(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Break every connection; the broker runs on. This is the fixture ``break_wire``."""
        for client in list(self.connected):
            client.transport.abort()
            self.leave(client)
        await asyncio.sleep(0)

    async def __aenter__(self) -> Broker:
        await self.restart()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    def enter(self, client: _Client, name: str) -> None:
        client.name = name
        for other in self._clients.values():
            other.transport.write(framed(Packet(name, here=True)))
            client.transport.write(framed(Packet(other.name, here=True)))
        self._clients[name] = client

    def leave(self, client: _Client) -> None:
        if self._clients.get(client.name) is client:
            del self._clients[client.name]
            for other in self._clients.values():
                other.transport.write(framed(Packet(client.name, here=False)))

    def forward(self, client: _Client, packet: Packet) -> None:
        receiver = self._clients.get(packet.name)
        if receiver is not None:
            receiver.transport.write(framed(Packet(client.name, packet.channel, packet.data)))


async def main(port: int) -> None:
    async with Broker(port):
        print("listening", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
