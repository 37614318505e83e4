"""A request as handlers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import RawRequestMessage, StreamWriter
from yarl import URL

from anywire_gateway_openai.http1.head import Head
from anywire_gateway_openai.http1.whole_body import WholeBody


class ServedRequest(web.BaseRequest):
    """aiohttp's, whose own constructor makes for each request what hardly any handler looks at. What is not in the head
    as it stands is made when somebody does. ``plain_path`` is the path where the target is nothing else, and has
    nothing to decode; else it is empty."""

    def __init__(
        self,
        head: Head,
        body: WholeBody | StreamReader,
        connection: BaseProtocol,
        loop: asyncio.AbstractEventLoop,
        peer: Any,
        tls: Any,
    ) -> None:
        self._protocol: Any = connection
        self._state = {}
        self._headers = head.headers
        self._method, self._version = head.method, head.version
        self._payload: Any = body
        self._transport_peername, self._transport_sslcontext = peer, tls
        self._loop = loop
        self._target = target = head.target
        # Where aiohttp keeps what it has found out of a request.
        self._cache = {
            "method": head.method,
            "version": head.version,
            "headers": head.headers,
            "keep_alive": head.keep_alive,
            "content": body,
        }
        self.plain_path = ""
        if "%" not in target and "?" not in target and "#" not in target:
            self.plain_path = self._cache["path"] = target

    # As of a dict: an abstract mapping's own raise and catch an error for what is not there.

    def __setitem__(self, key: Any, value: Any) -> None:
        self._state[key] = value

    def get(self, key: Any, default: Any = None) -> Any:
        return self._state.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._state

    def __getattr__(self, name: str) -> Any:
        make = _LATER.get(name)
        if make is None:
            raise AttributeError(f"a request has no {name}")
        value = make(self)
        setattr(self, name, value)
        return value


def raw_path(request: web.BaseRequest) -> str:
    """The path as the client wrote it, without its query."""
    plain = request.plain_path if isinstance(request, ServedRequest) else ""
    return plain or request.rel_url.raw_path


def _url(request: ServedRequest) -> URL:
    """As aiohttp's parser reads a target that begins with a slash."""
    path, mark, query = request._target.partition("?")
    if mark:
        query, _, fragment = query.partition("#")
    else:
        path, _, fragment = path.partition("#")
    return URL.build(path=path, query_string=query, fragment=fragment, encoded=True)


def _message(request: ServedRequest) -> RawRequestMessage:
    headers = request.headers
    raw = tuple((name.encode(), value.encode()) for name, value in headers.items())
    closes = not request.keep_alive
    return RawRequestMessage(
        request.method, request._target, request.version, headers, raw, closes, None, False, False, request.rel_url
    )


def _sockname(request: ServedRequest) -> Any:
    transport = request.transport
    return None if transport is None else transport.get_extra_info("sockname")


_LATER: Mapping[str, Callable[[ServedRequest], Any]] = {
    "_rel_url": _url,
    "_message": _message,
    "_payload_writer": lambda request: StreamWriter(request._protocol, request._loop),
    "_transport_sockname": _sockname,
    "_task": lambda request: None,
    "_client_max_size": lambda request: 0,
    "_client_max_fields": lambda request: 1000,
}
