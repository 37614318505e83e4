"""How many connections a server may have, so that those of strangers do not take the descriptors of everybody else."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from anywire.once_log import OnceLog

log = logging.getLogger(__name__)

LEAST = 16
"""Connections that a server may have, however few descriptors there are."""
WITHOUT_LIMIT = 65536
"""Descriptors that are reckoned with where the system tells no limit, and most that a process asks for."""


class Body(Protocol):
    """A request's body, as far as it has arrived."""

    def is_eof(self) -> bool: ...


class ConnectionLimit:
    """The open connections of one server, at most ``most`` of them: a third of this process's descriptors unless given.

    Of more, the one is closed that has waited longest for its peer: idle, or with half of a request. Where none waits,
    the newest is closed. A connection is told by `opened`, `begun` and `ended`, and `closed`.
    """

    def __init__(self, server: str, most: int = 0) -> None:
        self.most = most or max(LEAST, descriptors() // 3)
        self._server = server
        self._open: dict[asyncio.BaseTransport, Body | None] = {}
        """The body of the request that is being answered on each; the order is that in which they began to wait."""
        self._by_handler: dict[object, asyncio.BaseTransport] = {}
        self._once = OnceLog(log)

    def opened(self, connection: asyncio.BaseTransport, handler: object = None) -> None:
        """A peer has connected. ``handler`` is what `lost` will name; it forgets its connection when it closes it."""
        if handler is not None:
            self._by_handler[handler] = connection
        self._open[connection] = None
        if len(self._open) <= self.most:
            return
        waiting = (each for each, body in self._open.items() if body is None or not body.is_eof())
        longest = next(waiting)  # the new one at the latest
        self._once.warn(
            longest is connection,
            "%s has %d connections, as many as there may be (a third of `ulimit -n`): %s is closed",
            self._server,
            self.most,
            "a new one" if longest is connection else "the one that has waited longest for its peer",
        )
        self.closed(longest)
        longest.close()

    def closed(self, connection: asyncio.BaseTransport) -> None:
        """A connection has ended. May be called again."""
        self._open.pop(connection, None)

    def lost(self, handler: object) -> None:
        """The connection that was `opened` with this handler has ended."""
        connection = self._by_handler.pop(handler, None)
        if connection is not None:
            self.closed(connection)

    def begun(self, connection: asyncio.BaseTransport | None, body: Body) -> None:
        """The head of a request is there; with the end of ``body`` the connection waits for its peer no more."""
        if connection in self._open:
            self._open[connection] = body

    def ended(self, connection: asyncio.BaseTransport | None) -> None:
        """The request is answered. A connection that is closed, or None, is ignored."""
        if connection is not None and self._open.pop(connection, None) is not None:
            self._open[connection] = None


def descriptors() -> int:
    """Files and connections that this process may have open."""
    limits = _limits()
    return WITHOUT_LIMIT if limits is None else limits[0]


def raise_descriptors() -> None:
    """Ask the system for as many descriptors as this process may have: a shell's default is for programs that use few,
    and each task in flight may hold a connection."""
    limits = _limits()
    if limits is None or limits[0] >= min(limits[1], WITHOUT_LIMIT):
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[1], WITHOUT_LIMIT), hard))
    except (OSError, ValueError) as error:
        log.debug("the limit of descriptors stays at %d: %s", limits[0], error)


def _limits() -> tuple[int, int] | None:
    """The limit in effect and the one up to which it may be raised."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    return (WITHOUT_LIMIT if soft == infinite else soft, WITHOUT_LIMIT if hard == infinite else hard)
