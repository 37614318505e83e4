"""The HTTP client as both ends use it: connections kept alive and without a limit, nothing that costs time unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from anywire_http.config import HttpConfig
from anywire_http.wire import JSON

CONNECT_S = 5.0
IDLE_S = 60.0
"""Unused connections are closed after so long: by the client, long before a server would."""


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


class Body(aiohttp.Payload):
    """A request body that says when it has been given to the connection."""

    def __init__(self, data: bytes, written: Callable[[], None]) -> None:
        super().__init__(data, content_type=JSON)
        self._size = len(data)
        self._data, self._written = data, written

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._data.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await writer.write(self._data)
        self._written()

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        await self.write(writer)
