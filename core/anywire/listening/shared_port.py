"""A port on which several processes of one user listen: the kernel divides the connections among them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys

from anywire.errors import ConfigError


class SharedPort:
    """``port`` of ``host``, which this process holds while others listen there with ``SO_REUSEPORT``. It takes no
    connection itself: it keeps the port from everybody else, also while none of the others runs."""

    def __init__(self, host: str, port: int, holding: list[socket.socket]) -> None:
        self.host, self.port = host, port
        self._holding = holding

    @classmethod
    async def hold(cls, host: str, port: int | None, default_port: int, port_key: str) -> SharedPort:
        """Hold ``port``, 0 for any that is free; None means ``default_port``, or any where that is taken. ``port_key``
        names the setting in messages. Raises `ConfigError`."""
        if sys.platform != "linux":
            raise ConfigError(
                "server.gateway_processes needs Linux, whose kernel divides the connections of one port among "
                "processes: leave it out"
            )
        try:
            return await cls._held(host, default_port if port is None else port)
        except OSError as error:
            if port is None and error.errno == errno.EADDRINUSE:
                with contextlib.suppress(OSError):
                    return await cls._held(host, 0)
            raise ConfigError(
                f"gateways cannot listen on {host} port {default_port if port is None else port}: "
                f"{error.strerror or error}; set another {port_key}"
            ) from error

    @classmethod
    async def _held(cls, host: str, port: int) -> SharedPort:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        holding: list[socket.socket] = []
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                holding.append(_bound(family, (address[0], port, *address[2:])))
                port = holding[0].getsockname()[1]
        except BaseException:
            for each in holding:
                each.close()
            raise
        return cls(host, port, holding)

    def close(self) -> None:
        """Let the port go. Safe to call twice."""
        holding, self._holding = self._holding, []
        for each in holding:
            each.close()


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    """A socket bound to ``address`` that does not listen. Raises `OSError` where anybody else has it, be it that they
    would share."""
    with _new(family, again=True) as alone:
        alone.bind(address)
        address = (address[0], alone.getsockname()[1], *address[2:])
    try:
        return _shared(family, address, again=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    # Connections of a server that did not share it have not all ended. Nobody listens there, so it is taken; while none
    # of the others listens, somebody else could take it from them.
    return _shared(family, address, again=True)


def _shared(family: int, address: tuple[object, ...], again: bool) -> socket.socket:
    made = _new(family, again)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def _new(family: int, again: bool) -> socket.socket:
    """``again``: also where connections of an earlier server have not all ended."""
    made = socket.socket(family, socket.SOCK_STREAM)
    if again:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made
