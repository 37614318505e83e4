"""How both ends find each other: sockets in one directory.

Without polling: every end first puts its socket into the directory and then looks who is there. A hub connects to each
agent it finds; an agent knocks at each hub it finds, and that hub connects. Of two that start at once at least one sees
the other, and since only hubs connect there is never a second connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from anywire.errors import TransportUnavailable
from anywire.transport import Plane
from anywire.transport_tools import StopDialling, StreamChannel, keep_dialling, stop_accepting

log = logging.getLogger(__name__)

Role = Literal["hub", "agent"]
OTHER: dict[Role, Role] = {"hub": "agent", "agent": "hub"}


class Directory:
    """One end's place in the directory; ``socket`` is its name there.

    ``new_channel`` makes the channel of a connection from the peer's name. ``use`` uses one that this end has
    connected, as `keep_dialling` asks of an attempt.
    """

    def __init__(
        self,
        path: Path,
        plane: Plane,
        role: Role,
        new_channel: Callable[[str], StreamChannel],
        use: Callable[[StreamChannel], Awaitable[bool]],
    ) -> None:
        self.path, self._prefix = path, f"{plane}.{OTHER[role]}."
        self.socket = f"{plane}.{role}.{secrets.token_hex(6)}"
        self._new_channel, self._use = new_channel, use
        self._server: asyncio.Server | None = None
        self._dialled: dict[str, asyncio.Task[None]] = {}

    async def enter(self) -> None:
        """Put this end's socket there and connect to those who are there. Raises `TransportUnavailable`."""
        # Under a name that nobody looks for: a socket that does not listen yet looks like that of a dead process.
        hidden = self.path / f".{self.socket}"
        loop = asyncio.get_running_loop()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid != os.getuid() or found.st_mode & 0o022:
                raise PermissionError("it must belong to this user, and nobody else may write there")
            self._server = await loop.create_unix_server(lambda: self._new_channel("a peer"), str(hidden))
            hidden.rename(self.path / self.socket)
        except OSError as error:
            await self.leave()
            raise TransportUnavailable(
                f"no socket can be made in {self.path}: {error}; choose another transports.unix.directory"
            ) from error
        for socket in self.others():
            self.dial(socket)

    def others(self) -> list[str]:
        """The sockets of the other role on this plane."""
        return sorted(path.name for path in self.path.glob(f"{self._prefix}*"))

    def dial(self, socket: str) -> None:
        """Connect to a socket of the directory, unless that is done or under way."""
        if socket not in self._dialled and self._server is not None:
            dialling = keep_dialling(lambda: self._attempt(self.path / socket), str(self.path / socket))
            self._dialled[socket] = asyncio.get_running_loop().create_task(dialling)
            self._dialled[socket].add_done_callback(lambda _: self._dialled.pop(socket, None))

    async def _attempt(self, path: Path) -> bool:
        try:
            _, channel = await asyncio.get_running_loop().create_unix_connection(
                lambda: self._new_channel(path.name), str(path)
            )
        except FileNotFoundError:
            raise StopDialling from None
        except ConnectionRefusedError:
            log.info("removing %s: its process is dead", path)
            _remove(path)
            raise StopDialling from None
        return await self._use(channel)

    async def leave(self) -> None:
        """Remove this end's socket, accept nothing and connect to nobody any more; idempotent."""
        for name in (self.socket, f".{self.socket}"):
            _remove(self.path / name)
        server, self._server = self._server, None
        if server is not None:
            await stop_accepting(server)  # nobody finds it any more
        dialling = list(self._dialled.values())
        for task in dialling:
            task.cancel()
        await asyncio.gather(*dialling, return_exceptions=True)


def _remove(socket: Path) -> None:
    try:
        socket.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be removed: %s", socket, error)
