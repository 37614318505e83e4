"""The settings of the transport ``tcp``, and what an address is."""

from __future__ import annotations

import os
import socket
from typing import Annotated, NamedTuple

import pydantic

from anywire.transport_tools import BoundedOptions, is_loopback

TCP, UNIX = "tcp://", "unix://"
PATH_LIMIT = 103
"""Bytes in the path of a Unix socket that every system accepts."""
MAX_PORT = 65535


class Endpoint(NamedTuple):
    """Where to listen or to connect: ``path`` is that of a Unix socket, empty for a ``host`` and ``port``."""

    host: str = ""
    port: int = 0
    path: str = ""


def endpoint_of(address: str) -> Endpoint:
    """The parts of ``address``. Raises `ValueError`, which says what would do."""
    if address.startswith(UNIX):
        if not hasattr(socket, "AF_UNIX"):
            raise ValueError(f"{address!r}: this system has no Unix sockets; use {TCP}HOST:PORT")
        path = address.removeprefix(UNIX)
        if not path.startswith("/") or not len(os.fsencode(path)) <= PATH_LIMIT or "\0" in path:
            raise ValueError(f"{address!r}: after {UNIX} comes a whole path, /…, of at most {PATH_LIMIT} bytes")
        return Endpoint(path=path)
    host, _, port = address.removeprefix(TCP).rpartition(":")
    if not address.startswith(TCP) or not host or "/" in address.removeprefix(TCP):
        raise ValueError(f"{address!r} is no address: use {TCP}HOST:PORT, or {UNIX}/path/of/a/socket")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{address!r}: an IPv6 address stands in brackets, {TCP}[HOST]:PORT")
    if not port.isascii() or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError(f"{address!r}: the port is a number up to {MAX_PORT}; 0 listens on any free one")
    return Endpoint(host.removeprefix("[").removesuffix("]"), int(port))


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    where = endpoint_of(address)
    return bool(where.path) or is_loopback(where.host)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _each_address(values: list[str]) -> list[str]:
    for value in values:
        endpoint_of(value)
    return values


Addresses = Annotated[
    list[str],
    pydantic.BeforeValidator(_as_list),
    pydantic.AfterValidator(_each_address),
    pydantic.Field(min_length=1),
]


class TcpConfig(BoundedOptions):
    """Each list of addresses is a directory: whoever listens takes the first that is free on its machine, whoever
    connects connects to all. One file with both lists therefore serves every process of a deployment."""

    agent_addresses: Addresses = pydantic.Field(
        default=["tcp://127.0.0.1:5570"], description="Addresses where orchestrators listen for agents."
    )
    client_addresses: Addresses = pydantic.Field(
        default=["tcp://127.0.0.1:5571"], description="Addresses where orchestrators listen for clients."
    )
