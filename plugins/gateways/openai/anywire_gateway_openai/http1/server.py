"""All connections of a gateway, and the one place that knows both servers."""

from __future__ import annotations

import asyncio

from aiohttp.base_protocol import BaseProtocol

from anywire.listening.connection_limit import ConnectionLimit
from anywire_gateway_openai.http1.connection import Connection
from anywire_gateway_openai.protocol import OpenAIServer
from anywire_gateway_openai.routes import Routes


class HttpServer:
    """The factory of connections. Each is a `Connection`; the first request on it that needs more goes to aiohttp's
    server with the connection, which stays there: chunked bodies, WebSockets, rare methods, and all that is refused
    before a handler is reached.

    ``idle_timeout`` is in seconds, for connections without a request.
    """

    def __init__(self, routes: Routes, limit: ConnectionLimit, idle_timeout: float) -> None:
        self.handler, self.idle_timeout = routes, idle_timeout
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._own: set[Connection] = set()
        self._others = OpenAIServer(routes, limit, idle_timeout)

    def __call__(self) -> BaseProtocol:
        return Connection(self, self._loop)

    @property
    def connections(self) -> list[BaseProtocol]:
        """All that are open."""
        return [*self._own, *self._others.connections]

    def pre_shutdown(self) -> None:
        """Take no further request: connections without one are closed, the others when theirs is answered."""
        for each in list(self._own):
            each.finish()
        self._others.pre_shutdown()

    async def shutdown(self, timeout: float) -> None:
        """Cut off what is still answered after ``timeout`` seconds, and close all connections."""
        await asyncio.gather(self._end_own(timeout), self._others.shutdown(timeout))

    async def _end_own(self, timeout: float) -> None:
        tasks = [each.task for each in self._own if each.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        for each in list(self._own):
            each.end()

    # Called by connections

    def opened(self, connection: Connection, transport: asyncio.Transport) -> None:
        self._own.add(connection)
        self._limit.opened(transport, connection)

    def lost(self, connection: Connection) -> None:
        self._own.discard(connection)
        self._limit.lost(connection)

    def hand_over(self, connection: Connection, transport: asyncio.Transport, data: bytes) -> None:
        """Give a connection to aiohttp's server, as if ``data`` were the first that came on it."""
        self.lost(connection)
        other = self._others()
        transport.set_protocol(other)
        other.connection_made(transport)
        if connection.writing_paused:
            other.pause_writing()
        other.data_received(data)
