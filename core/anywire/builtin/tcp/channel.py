"""A connection of the transport ``tcp``: a channel over a stream, whose network is watched by the kernel."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from anywire.transport_tools import ChannelOwner, Codec, StreamChannel

CODEC = Codec()
SILENT_LEASES = 4
"""Leases after which a connection ends whose peer's kernel acknowledges nothing, or takes nothing of what waits. That
of a process that is paused does both until its buffer is full."""


class TcpChannel(StreamChannel):
    """``lease_ms`` is that of this end, by which the network is watched; a Unix socket has none. ``is_dialled`` tells
    that this end has connected."""

    def __init__(self, owner: ChannelOwner, lease_ms: int, is_dialled: bool, **bounds: Any) -> None:
        super().__init__(owner, CODEC, **bounds)
        self._lease_ms = lease_ms
        self.is_dialled = is_dialled
        self.incarnation = -1
        """That of the peer, once it has said hello."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        found = transport.get_extra_info("socket")
        if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
            _watch_network(found, SILENT_LEASES * self._lease_ms)
        super().connection_made(transport)


def _watch_network(connection: socket.socket, timeout_ms: int) -> None:
    seconds = max(1, timeout_ms // 4000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Not every system has all of them; without one its own default counts, which is longer.
    for name, value in (("TCP_KEEPIDLE", seconds), ("TCP_KEEPINTVL", seconds), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
