"""Servers that take no further connection."""

from __future__ import annotations

import asyncio
import contextlib

TURNS = 4
"""Turns of the event loop in which a connection that was accepted becomes its protocol's."""


async def stop_accepting(*servers: asyncio.Server) -> None:
    """Close servers, but not before what they have accepted already has its protocol, which then ends it. A server
    that is closed in between (asyncio's, before Python 3.12) would drop the connection without closing it."""
    loop = asyncio.get_running_loop()
    for server in servers:
        for listening in server.sockets:
            with contextlib.suppress(NotImplementedError):  # not every event loop accepts by readers
                loop.remove_reader(listening.fileno())
    for _ in range(TURNS):
        await asyncio.sleep(0)
    for server in servers:
        server.close()
