"""Where a URL leads, and what its host's name stands for."""

from __future__ import annotations

import asyncio
import base64
import functools
import socket
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from aiohappyeyeballs import AddrInfoType

from anywire_engine_openai.http.faults import Closed

REMEMBERED = 10.0
"""Seconds a name is not looked up again."""
MAX_NAMES = 100

_PATH_CHARACTERS = "/%:@!$&'()*+,;=~-._"
_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """A server, as far as its URL tells it apart from others."""

    is_tls: bool
    host: str
    port: int


class Target(NamedTuple):
    """``path`` is what is asked for there, ``host`` the header, and ``credentials`` the value of ``Authorization`` that
    a user in the URL stands for."""

    origin: Origin
    path: str
    host: str
    credentials: str


def read_target(url: str) -> Target:
    """What a URL says. Raises ``ValueError`` for one that is no ``http://`` or ``https://`` address."""
    parts = urlsplit(url)
    default = _PORTS.get(parts.scheme)
    if default is None or not parts.hostname:
        raise ValueError("it is no http:// or https:// address")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    port = default if parts.port is None else parts.port
    shown = f"[{host}]" if ":" in host else host
    credentials = ""
    if parts.username or parts.password:
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        credentials = f"Basic {base64.b64encode(user.encode('latin-1', 'replace')).decode()}"
    path = quote(parts.path or "/", safe=_PATH_CHARACTERS)
    if parts.query:
        path += "?" + quote(parts.query, safe=_PATH_CHARACTERS + "?")
    header = shown if port == default else f"{shown}:{port}"
    return Target(Origin(parts.scheme == "https", host, port), path, header, credentials)


class Addresses:
    """What the names of hosts stand for. A name with several addresses gives another one first each time, so that they
    share the connections."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, deque[AddrInfoType]]] = {}
        self._asking: dict[tuple[str, int], asyncio.Task[deque[AddrInfoType]]] = {}

    async def of(self, host: str, port: int) -> list[AddrInfoType]:
        """Raises ``OSError`` for a name that is not known."""
        try:
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return _only(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
        except socket.gaierror:
            pass  # a name
        loop = asyncio.get_running_loop()
        name = host, port
        until, known = self._known.get(name, (0.0, deque[AddrInfoType]()))
        if until <= loop.time():
            asking = self._asking.get(name)
            if asking is None:
                asking = self._asking[name] = asyncio.create_task(_found(host, port))
                asking.add_done_callback(functools.partial(self._learn, name))
            try:
                known = await asyncio.shield(asking)  # others may wait for it too
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if asking.cancelled() and not (task is not None and task.cancelling()):
                    raise Closed("the client is closed") from None
                raise
        known.rotate(-1)
        return list(known)

    def close(self) -> None:
        for asking in self._asking.values():
            asking.cancel()

    def _learn(self, name: tuple[str, int], asking: asyncio.Task[deque[AddrInfoType]]) -> None:
        self._asking.pop(name, None)
        if asking.cancelled() or asking.exception() is not None:
            return
        if len(self._known) >= MAX_NAMES:
            self._known.clear()
        self._known[name] = asyncio.get_running_loop().time() + REMEMBERED, asking.result()


async def _found(host: str, port: int) -> deque[AddrInfoType]:
    return deque(await _look_up(host, port))


async def _look_up(host: str, port: int) -> list[AddrInfoType]:
    loop = asyncio.get_running_loop()
    return _only(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))


def _only(found: Sequence[AddrInfoType]) -> list[AddrInfoType]:
    """Raises ``OSError`` where a name has no address."""
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
    return list(found)
