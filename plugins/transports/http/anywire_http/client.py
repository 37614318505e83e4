"""The HTTP client as both ends use it: connections kept alive and without a limit, nothing that costs time unasked."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter

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
