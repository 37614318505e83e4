"""The sockets of a server for clients: a TCP port, with TLS or without, and a Unix socket."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from anywire.access_settings import TlsConfig
from anywire.errors import ConfigError
from anywire.listening.handshakes import Handshakes
from anywire.this_system import needs_posix
from anywire.transport_tools.accepting import stop_accepting
from anywire.transport_tools.unix_socket import UnixSocket

if TYPE_CHECKING:
    from anywire.listening.certificates import ServerCertificate

log = logging.getLogger(__name__)

BACKLOG = 1024


class Listener:
    """Listens for the clients of one server, called ``server`` in messages. ``factory`` makes the protocol of each
    connection.

    It listens at ``host`` and ``port``, where a ``port`` of None means ``default_port``, or any that is free when that
    is taken; with ``tls`` each connection there uses TLS. An empty ``host`` leaves that out. ``unix`` is the path of a
    Unix socket for this user alone, without TLS. ``port_key`` names the setting in messages. With ``reuse_port`` the
    port is shared with other processes of this user (`anywire.listening.shared_port`).
    """

    def __init__(
        self,
        server: str,
        factory: Callable[[], asyncio.Protocol],
        *,
        host: str,
        port: int | None,
        default_port: int,
        port_key: str,
        unix: Path | None = None,
        tls: TlsConfig | None = None,
        reuse_port: bool = False,
    ) -> None:
        self._name, self._factory, self._reuse_port = server, factory, reuse_port
        self._host, self._port, self._default_port, self._port_key = host, port, default_port, port_key
        self._unix, self._tls = unix, tls
        self._servers: list[asyncio.Server] = []
        self._handshakes: Handshakes | None = None
        self._certificate: ServerCertificate | None = None
        self.certificate_reloaded: Callable[..., object] = lambda error: None
        """See `anywire.listening.certificates.ServerCertificate.reloaded`; to be set before `open`."""
        self._own_socket: UnixSocket | None = None
        self.host, self.port = "", 0
        """Where it listens, known after `open`; an empty host where it does so on a Unix socket alone."""
        self.address = ""
        """Where clients on this machine reach it."""

    async def open(self) -> None:
        """Begin to listen. Raises `ConfigError`, and then nothing is left open."""
        try:
            if self._host:
                await self._open_port()
            if self._unix is not None:
                await self._open_unix(self._unix)
        except BaseException:
            await self.close()
            raise

    async def stop(self) -> None:
        """Take no further connection from now on; those that are open stay, also those that a peer has just opened.
        Safe to call twice."""
        servers, self._servers = self._servers, []
        await stop_accepting(*servers)
        if self._handshakes is not None:
            self._handshakes.stop()
        if self._own_socket is not None:
            self._own_socket.remove()
            self._own_socket = None

    async def close(self) -> None:
        """`stop`, and end what goes on in the background."""
        await self.stop()
        if self._handshakes is not None:
            await self._handshakes.close()
        if self._certificate is not None:
            await self._certificate.close()

    async def _open_port(self) -> None:
        certificate: ServerCertificate | None = None
        if self._tls is not None:
            from anywire.listening.certificates import ServerCertificate

            certificate = ServerCertificate(self._tls)
            certificate.reloaded = self.certificate_reloaded
        sockets = await self._sockets()
        self.host, self.port = sockets[0].getsockname()[:2]
        if certificate is None:
            for each in sockets:
                self._servers.append(await self._serve(each))
        else:
            self._handshakes = Handshakes(self._name, sockets, self._factory, certificate)
            self._certificate = certificate
            certificate.start()
        self.address = f"{'http' if certificate is None else 'https'}://{_reachable(self.host)}:{self.port}"

    async def _serve(self, listening: socket.socket) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(self._factory, sock=listening, backlog=BACKLOG)

    async def _sockets(self) -> list[socket.socket]:
        """Sockets at the port that is set, or else at the usual one or any."""
        port = self._default_port if self._port is None else self._port
        try:
            return await _bound(self._host, port, self._reuse_port)
        except OSError as error:
            if self._port is not None or error.errno != errno.EADDRINUSE:
                raise self._cannot_listen(port, error) from error
        log.info("port %d of %s is taken: another one is used", port, self._host)
        return await _bound(self._host, 0, self._reuse_port)

    async def _open_unix(self, path: Path) -> None:
        self._own_socket = own = _bound_unix(self._name, path)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(self._factory, sock=own.socket, backlog=BACKLOG))
        self.address = self.address or _unix_address(path)

    def _cannot_listen(self, port: int, error: OSError) -> ConfigError:
        where = f"{self._name} cannot listen on {self._host} port {port}"
        if isinstance(error, socket.gaierror):
            return ConfigError(f"{where}: the host name is not known; set host to an address of this machine")
        match error.errno:
            case errno.EADDRINUSE:
                what = f"another process uses it; stop that one or set another {self._port_key}"
            case errno.EACCES | errno.EPERM:
                what = "permission denied; set a port of 1024 or above, or give the process CAP_NET_BIND_SERVICE"
            case errno.EADDRNOTAVAIL:
                what = "no interface of this machine has that address; set host to one, or to 127.0.0.1"
            case _:
                what = str(error)
        return ConfigError(f"{where}: {what}")


async def _bound(host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    """Listening sockets at each address of ``host``. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            each = socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=reuse_port)
            each.setblocking(False)
            sockets.append(each)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _unix_address(path: Path) -> str:
    return f"unix:{path.absolute()}"


def _bound_unix(server: str, path: Path) -> UnixSocket:
    """Raises `ConfigError`."""
    where = f"{server} cannot listen on the Unix socket {path}"
    needs_posix("a Unix socket (server.unix)")
    try:
        return UnixSocket(path)
    except FileExistsError as error:
        raise ConfigError(f"{where}: {error.strerror}; remove it or set another server.unix") from error
    except OSError as error:
        what = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            what = "another process listens there; stop that one or set another server.unix"
        raise ConfigError(f"{where}: {what}") from error


def _reachable(host: str) -> str:
    """An address that a client on this machine can use."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"[{address}]" if address.version == 6 else str(address)
