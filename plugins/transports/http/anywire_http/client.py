"""The HTTP client as both ends use it: connections kept alive and without a limit, nothing that costs time unasked."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from anywire.errors import AgentLost
from anywire.transport_tools import EndCertificate
from anywire_http.config import HttpConfig
from anywire_http.wire import JSON

CONNECT_S = 5.0
"""Seconds until an attempt to connect is given up."""

IDLE_S = 60.0
"""Seconds after which the client closes an unused connection: long before a server would."""


def new_session(config: HttpConfig, **headers: str) -> aiohttp.ClientSession:
    if config.token is not None:
        headers["Authorization"] = f"Bearer {config.token.get_secret_value()}"
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        headers={"Content-Type": JSON, **headers},
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        auto_decompress=False,
    )


class LinkSession:
    """Requests to one other end. Where both have made themselves certificates (``certificate``), only the one that has
    answered first is spoken to."""

    def __init__(self, config: HttpConfig, certificate: EndCertificate | None, url: str, **headers: str) -> None:
        address = URL(url)
        # A certificate of the web is that of a proxy in front.
        self._own = certificate if address.scheme == "http" else None
        self.url = str(address.with_scheme("https")) if self._own is not None else url
        """Where requests go."""
        self.link_key = self._own.digest if self._own is not None else b""
        """See `anywire.transport_tools.LinkProofs`."""
        self._ssl: ssl.SSLContext | bool = self._own.client_context() if self._own is not None else True
        self._session = new_session(config, **headers)

    def get(self, url: URL, **more: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.get(url, ssl=self._ssl, allow_redirects=False, **more)

    def post(self, url: URL, **more: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.post(url, ssl=self._ssl, allow_redirects=False, **more)

    def stay_with(self, response: aiohttp.ClientResponse) -> None:
        """From now on nobody is spoken to but who has given this ``response``, which has not been read to its end. Who
        is in between could answer a new connection, and the proof that was shown is of this one."""
        if self._own is None:
            return
        connection = response.connection
        shown = connection.transport.get_extra_info("ssl_object") if connection and connection.transport else None
        if shown is None:
            raise AgentLost("the connection ended at once")
        self._ssl = self._own.client_context(only=shown.getpeercert(binary_form=True))

    async def close(self) -> None:
        await self._session.close()


PIECE_BYTES = 1024 * 1024
"""Bytes of a body that are written before the event loop runs again."""


class Body(aiohttp.Payload):
    """A request body of any size, in parts that follow each other; aiohttp warns of large bytes otherwise."""

    def __init__(self, *parts: bytes) -> None:
        super().__init__(parts, content_type=JSON)
        self._size = sum(map(len, parts))
        self._parts = parts

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._parts).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for part in self._parts:
            if len(part) <= PIECE_BYTES:
                await writer.write(part)
                continue
            for start in range(0, len(part), PIECE_BYTES):
                await writer.write(memoryview(part)[start : start + PIECE_BYTES])
                await asyncio.sleep(0)

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        await self.write(writer)
