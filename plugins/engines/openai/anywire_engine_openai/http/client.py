"""The connections to servers: kept ones where there are any, new ones otherwise."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

import aiohappyeyeballs

from anywire.known_head import KnownHead
from anywire_engine_openai.http.addresses import Addresses, Origin, Target, read_target
from anywire_engine_openai.http.answer import Answer
from anywire_engine_openai.http.codings import decoders
from anywire_engine_openai.http.connection import Connection, Head
from anywire_engine_openai.http.faults import CannotConnect, Closed, Silence

if TYPE_CHECKING:
    from anywire_engine_openai.http.cookies import Cookies

NEXT_ADDRESS = 0.25
"""Seconds after which a name's next address is tried beside the one that has not answered yet."""
MAX_TARGETS = 100
USER_AGENT = "Anywire"


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent. Raises ``ValueError`` for what would end one, or is no character of them."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\r\n") != len(headers) or not lines.replace("\r\n", "").replace("\t", "").isprintable():
        raise ValueError(f"a header of {', '.join(headers)} has a line break or another control character")
    return lines.encode()


class _Asked:
    """How requests of one URL begin."""

    def __init__(self, url: str) -> None:
        self.target: Target = read_target(url)
        lines = {
            "Host": self.target.host,
            "Accept": "*/*",
            "Accept-Encoding": ", ".join(decoders()),
            "User-Agent": USER_AGENT,
        }
        if self.target.credentials:
            lines["Authorization"] = self.target.credentials
        common = header_lines(lines)
        self.begins = {
            method: f"{method} {self.target.path} HTTP/1.1\r\n".encode() + common for method in ("GET", "POST")
        }


class Client:
    """Used on one event loop. It follows no redirects and asks no proxies. Close it."""

    def __init__(self, *, connect_timeout: float, tls: ssl.SSLContext | None = None) -> None:
        """``connect_timeout``: seconds for name, connection and TLS together. ``tls``: which certificate a server must
        show; default: one that comes from an authority known to all."""
        self._connect_timeout, self._tls = connect_timeout, tls
        self._idle: dict[Origin, list[Connection]] = {}
        self._origins: dict[Connection, Origin] = {}
        self._asked: dict[str, _Asked] = {}
        self._addresses = Addresses()
        self._cookies: Cookies | None = None
        self.known = KnownHead[Head]()
        self._is_closed = False

    async def send(
        self, method: str, url: str, lines: bytes, body: bytes | None = None, *, limit: float = 0.0, anew: bool = False
    ) -> Answer:
        """Ask ``url``; return the answer once its head has arrived. ``lines`` are further headers (`header_lines`).
        ``limit``: seconds the server may take to be connected, and then for the head; 0: no limit. ``anew``: over a new
        connection that is not kept.

        Raises `Fault`: `CannotConnect` when nothing was sent, and ``Closed.was_idle`` when the server may never have
        seen it."""
        if self._is_closed:
            raise Closed("the client is closed")
        asked = self._asked_of(url)
        origin = asked.target.origin
        request = asked.begins[method] + lines
        if self._cookies is not None:
            cookies = self._cookies.of(url)
            request += header_lines({"Cookie": cookies}) if cookies else b""
        if anew:
            request += b"Connection: close\r\n"
        request += b"\r\n" if body is None else b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        connection = None if anew else self._idle_one(origin)
        if connection is None:
            try:
                async with asyncio.timeout(limit or None):
                    connection = await self._connect(origin)
            except TimeoutError as error:
                raise Silence(limit) from error
            connection.is_for_one = anew
        try:
            head = await connection.ask(request, limit)
            if head.cookies:
                self._keep_cookies(url, origin.host, head)
        except BaseException:
            connection.close()
            raise
        return Answer(connection, head)

    def close(self) -> None:
        """Close all connections; an answer that is being read ends with `Closed`."""
        self._is_closed = True
        self._idle.clear()
        for connection in list(self._origins):
            connection.close()
        self._addresses.close()

    # What connections tell

    def keep(self, connection: Connection) -> None:
        self._idle.setdefault(self._origins[connection], []).append(connection)

    def lost(self, connection: Connection) -> None:
        origin = self._origins.pop(connection, None)
        if origin is None:
            return
        idle = self._idle.get(origin, [])
        if connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(origin, None)

    # Inside

    def _asked_of(self, url: str) -> _Asked:
        asked = self._asked.get(url)
        if asked is None:
            try:
                asked = _Asked(url)
            except ValueError as error:
                raise CannotConnect(f"{url}: {error}") from error
            if len(self._asked) >= MAX_TARGETS:
                self._asked.clear()
            self._asked[url] = asked
        return asked

    def _idle_one(self, origin: Origin) -> Connection | None:
        """The one that was used last: others may end."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _connect(self, origin: Origin) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._connected(origin)
        except TimeoutError as error:
            raise CannotConnect(str(error) or f"no connection within {self._connect_timeout:g} s") from error
        except (OSError, UnicodeError, RuntimeError) as error:  # uvloop raises RuntimeError for some refusals
            raise CannotConnect(str(error) or type(error).__name__) from error
        if self._is_closed:
            connection.close()
            raise Closed("the client is closed")
        return connection

    async def _connected(self, origin: Origin) -> Connection:
        addresses = await self._addresses.of(origin.host, origin.port)
        connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS)
        connection = Connection(self)
        self._origins[connection] = origin
        loop = asyncio.get_running_loop()
        try:
            wire, _ = await loop.create_connection(lambda: connection, sock=connected)
        except BaseException:
            self._origins.pop(connection, None)
            connected.close()
            raise
        if not origin.is_tls:
            return connection
        # Its own step, so that what ends it ends the wire too: the socket is the wire's to close.
        context, name = self._tls or default_context(), origin.host.removesuffix(".")
        try:
            secured = await loop.start_tls(wire, connection, context, server_hostname=name)
            if secured is None or not connection.is_usable:
                raise ConnectionAbortedError("it was ended before TLS was there")
        except BaseException:
            self._origins.pop(connection, None)
            wire.abort()
            raise
        connection.connection_made(secured)
        return connection

    def _keep_cookies(self, url: str, host: str, head: Head) -> None:
        if self._cookies is None:
            from anywire_engine_openai.http.cookies import Cookies  # few servers set any

            self._cookies = Cookies()
        self._cookies.keep(url, host, head.cookies)


@functools.cache
def default_context() -> ssl.SSLContext:
    """For certificates that come from an authority known to all."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
