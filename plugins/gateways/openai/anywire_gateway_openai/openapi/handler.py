"""``GET openapi.json``: the description of what is served now."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.openapi.document import Served, document
from anywire_gateway_openai.openapi.form import Form, described


class ApiDescription:
    """The document is made when it is first asked for, and again when services have added routes."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._endpoints: Callable[[], Iterable[Served]] = tuple
        self._bases: Sequence[str] = ("",)
        self._made_of: list[tuple[str, str]] = []
        self._text, self._tag = b"", ""

    def begin(self, endpoints: Callable[[], Iterable[Served]], bases: Sequence[str]) -> None:
        """``endpoints`` tells what is served when it is called, the API below each of ``bases``."""
        self._endpoints, self._bases = endpoints, bases

    @described(Form(gives=dict[str, Any], also={304: None}))
    async def describe(self, request: web.BaseRequest) -> web.StreamResponse:
        """This API as an OpenAPI 3.1 document, with the routes of the services that run here."""
        await self._make()
        headers = {"ETag": self._tag, "Cache-Control": "no-cache", "Server": "anywire"}
        known = (each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(","))
        if self._tag in known:
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._text, headers=headers | {"Content-Type": "application/json"})

    async def _make(self) -> None:
        """In a thread: it takes a while, and is made of what does not change."""
        endpoints = list(self._endpoints())
        made_of = [(each.method, each.path) for each in endpoints]
        if made_of != self._made_of:
            text = await asyncio.to_thread(self._made, endpoints)
            self._text, self._tag = text, f'"{hashlib.sha256(text).hexdigest()[:32]}"'
            self._made_of = made_of

    def _made(self, endpoints: Sequence[Served]) -> bytes:
        needs_key = self._callers.needs_key
        return msgspec.json.encode(document(endpoints, self._bases, version("anywire"), needs_key=needs_key))
