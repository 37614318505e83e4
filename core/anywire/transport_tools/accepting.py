"""Servers that take no further connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

TURNS = 4
"""Turns of the event loop in which a connection that was accepted becomes its protocol's."""


async def stop_accepting(*servers: asyncio.AbstractServer) -> None:
    """Close servers: who connects from now on is refused. What they have accepted already becomes its protocol's, which
    may begin to read it, and then ends it: asyncio's own servers, before Python 3.12, would drop such a connection
    without closing it."""
    forgetful = [each for each in servers if sys.version_info < (3, 12) and isinstance(each, asyncio.Server)]
    loop = asyncio.get_running_loop()
    for server in servers:
        if server not in forgetful:
            server.close()
    for listening in [each for server in forgetful for each in server.sockets]:
        with contextlib.suppress(NotImplementedError):  # not every event loop accepts by readers
            loop.remove_reader(listening.fileno())
        with contextlib.suppress(OSError):  # not every system refuses connections then
            listening.shutdown(socket.SHUT_RDWR)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    for server in forgetful:
        server.close()
