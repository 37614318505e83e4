"""Servers that take no further connection, while peers connect."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from anywire.transport_tools import stop_accepting


@pytest.mark.parametrize("turns", range(5))
async def test_whoever_has_connected_is_accepted_or_refused_and_nothing_is_left_open(turns: int) -> None:
    made: list[asyncio.BaseTransport] = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    server = await asyncio.get_running_loop().create_server(Accepted, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with socket.socket() as peer:
        peer.connect(address)
        for _ in range(turns):
            await asyncio.sleep(0)
        await stop_accepting(server)
        for transport in made:
            transport.close()
        await server.wait_closed()
        peer.setblocking(False)
        with contextlib.suppress(ConnectionError):  # it was not accepted
            assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        with socket.socket() as late, pytest.raises(ConnectionRefusedError):
            late.connect(address)
