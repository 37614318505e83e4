"""How both ends of the transport ``tcp`` meet: one listens at the first free address, the other connects to all."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from anywire.builtin.tcp.channel import TcpChannel
from anywire.builtin.tcp.config import Endpoint, TcpConfig, endpoint_of
from anywire.transport import Plane
from anywire.transport_tools import keep_dialling, listening_addresses, none_is_free, stop_accepting, takes_any_port
from anywire.transport_tools.unix_socket import UnixSocket

BACKLOG = 1024
CONNECT_TIMEOUT = 5.0
"""Seconds that an attempt to connect may take: the kernel would go on for minutes."""


class Listening:
    """The socket on which an end is met. ``new_channel`` makes the channel of a connection from the peer's name."""

    def __init__(self, new_channel: Callable[[str], TcpChannel]) -> None:
        self._new_channel = new_channel
        self._server: asyncio.Server | None = None
        self._own_socket: UnixSocket | None = None
        self.address = ""
        """Where it listens, known after `open`."""

    async def open(self, config: TcpConfig, plane: Plane) -> None:
        """Listen at the first free address of ``plane``. Raises `TransportUnavailable` when none is."""
        reasons = []
        for address in listening_addresses(config, plane):
            try:
                self._server = await self._serve(address)
            except OSError as error:
                reasons.append(f"{address}: {_meaning(error)}")
                continue
            self.address = address
            if takes_any_port(address):
                self.address = f"{address.rpartition(':')[0]}:{self._server.sockets[0].getsockname()[1]}"
            return
        raise none_is_free(reasons, "tcp", plane)

    async def close(self) -> None:
        """Accept nothing any more. Safe to call twice."""
        server, self._server = self._server, None
        if self._own_socket is not None:
            self._own_socket.remove()
            self._own_socket = None
        if server is not None:
            await stop_accepting(server)

    async def _serve(self, address: str) -> asyncio.Server:
        where, loop = endpoint_of(address), asyncio.get_running_loop()
        accepted = partial(self._new_channel, f"a peer at {address}")
        if not where.path:
            return await loop.create_server(accepted, where.host, where.port, backlog=BACKLOG)
        self._own_socket = own = UnixSocket(Path(where.path))
        try:
            return await loop.create_unix_server(accepted, sock=own.socket, backlog=BACKLOG)
        except BaseException:
            own.socket.close()
            own.remove()
            raise


class Dialling:
    """Connects to every address of ``plane``, again and again. ``new_channel`` makes the channel of a connection from
    the peer's name, ``use`` uses one until it has ended, as `keep_dialling` asks of an attempt."""

    def __init__(self, new_channel: Callable[[str], TcpChannel], use: Callable[[TcpChannel], Awaitable[bool]]) -> None:
        self._new_channel, self._use = new_channel, use
        self._dialling: list[asyncio.Task[None]] = []

    def open(self, addresses: list[str]) -> None:
        loop = asyncio.get_running_loop()
        for address in dict.fromkeys(addresses):
            dialling = keep_dialling(partial(self._attempt, address), address)
            self._dialling.append(loop.create_task(dialling))

    async def close(self) -> None:
        """Connect to nobody any more. Safe to call twice."""
        dialling, self._dialling = self._dialling, []
        for task in dialling:
            task.cancel()
        await asyncio.gather(*dialling, return_exceptions=True)

    async def _attempt(self, address: str) -> bool:
        async with asyncio.timeout(CONNECT_TIMEOUT):  # its TimeoutError is an OSError
            channel = await self._connect(endpoint_of(address), address)
        return await self._use(channel)

    async def _connect(self, where: Endpoint, address: str) -> TcpChannel:
        loop = asyncio.get_running_loop()
        if where.path:
            _, channel = await loop.create_unix_connection(lambda: self._new_channel(address), where.path)
        else:
            _, channel = await loop.create_connection(lambda: self._new_channel(address), where.host, where.port)
        return channel


def _meaning(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    match error.errno:
        case errno.EADDRINUSE:
            return "in use by another process"
        case errno.EADDRNOTAVAIL:
            return "the address does not belong to this machine"
        case errno.EACCES | errno.EPERM:
            return "not permitted: choose a port above 1023, or a folder in which you may write"
        case errno.ENOENT:
            return "the folder of the socket does not exist"
    return error.strerror or str(error)
