"""What a hub and an agent have in common: a socket in the directory, and connections.

How they find each other without polling: every end first puts its socket into the directory and then looks who is
there. A hub connects to each agent it finds; an agent knocks at each hub it finds, and that hub connects. Of two that
start at once at least one sees the other, and since only hubs connect there is never a second connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from pathlib import Path
from typing import Any, Literal

from anywire.errors import TransportUnavailable
from anywire.transport import Plane
from anywire_unix.connection import Connection

log = logging.getLogger(__name__)

Role = Literal["hub", "agent"]
OTHER: dict[Role, Role] = {"hub": "agent", "agent": "hub"}
LINGER = 1.0
"""Seconds that what was accepted may take to leave when an end closes."""


class End:
    """Subclasses say what messages mean. ``socket`` is this end's name in the directory."""

    def __init__(self, directory: Path, limit: int, plane: Plane, role: Role) -> None:
        self.directory, self.limit, self.plane, self.role = directory, limit, plane, role
        self.socket = f"{plane}.{role}.{secrets.token_hex(6)}"
        self.closing = False
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._dialled: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Appear in the directory and turn to those who are there. Raises `TransportUnavailable`."""
        # Under a name that nobody looks for: a socket that does not listen yet looks like that of a dead process.
        hidden = self.directory / f".{self.socket}"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.directory.stat()
            if found.st_uid != os.getuid() or found.st_mode & 0o022:
                raise PermissionError("it must belong to this user, and nobody else may write there")
            self._server = await asyncio.get_running_loop().create_unix_server(self._connection, str(hidden))
            hidden.rename(self.directory / self.socket)
        except OSError as error:
            await self.shut()
            raise TransportUnavailable(
                f"no socket can be made in {self.directory}: {error}; choose another transports.unix.directory"
            ) from error
        for socket in self.others():
            self.dial(socket)

    def others(self) -> list[str]:
        """The sockets of the other role on this plane."""
        return sorted(path.name for path in self.directory.glob(f"{self.plane}.{OTHER[self.role]}.*"))

    def dial(self, socket: str) -> None:
        """Connect to a socket of the directory, unless that is done or under way."""
        if socket not in self._dialled and not self.closing:
            self._dialled[socket] = asyncio.get_running_loop().create_task(self._dial(socket))

    async def _dial(self, socket: str) -> None:
        path = self.directory / socket
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(self._connection, str(path))
            self.greet(connection)
            await asyncio.shield(connection.closed)
        except ConnectionRefusedError:
            log.info("removing %s: its process is dead", path)
            _remove(path)
        except FileNotFoundError:
            log.debug("%s has just gone", path)
        except OSError as error:
            log.warning("no connection to %s: %s", path, error)
        finally:
            del self._dialled[socket]

    async def shut(self) -> None:
        """Disappear, write what waits for a bounded time, release everything; idempotent."""
        self.closing = True
        for name in (self.socket, f".{self.socket}"):
            _remove(self.directory / name)
        if self._server is not None:
            self._server.close()
        ending = [connection.closed for connection in self._connections]
        for connection in self._connections:
            connection.close()
        if ending:
            await asyncio.wait(ending, timeout=LINGER)
            for connection in self._connections:
                connection.abort()
            await asyncio.wait(ending)
        for dialling in self._dialled.values():
            dialling.cancel()
        await asyncio.gather(*self._dialled.values(), return_exceptions=True)

    def _connection(self) -> Connection:
        return Connection(self, self.limit)

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        connection.closed.add_done_callback(lambda _: self._connections.discard(connection))

    # For subclasses

    def greet(self, connection: Connection) -> None:
        """Say something first on a connection this end has made."""
        raise NotImplementedError

    def received(self, connection: Connection, message: Any) -> None:
        raise NotImplementedError

    def ended(self, connection: Connection, reason: str) -> None:
        raise NotImplementedError


def _remove(socket: Path) -> None:
    try:
        socket.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be removed: %s", socket, error)
