"""What a gateway process passes on to its orchestrator's own gateway (`anywire.gateway.PassesOn`): everything but the
tasks that clients wait for, which it brings to the orchestrator itself.

A request is passed on as it came, its key included, with the client's address as this process has seen it; the answer
comes back as the orchestrator has given it, piece by piece. So lists, events, commands, services and their pages are
what they would be without gateway processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import aiohttp
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, istr
from yarl import URL

from anywire_gateway_openai.body import go_on
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.endpoint_table import BASES
from anywire_gateway_openai.errors import HttpError
from anywire_gateway_openai.idempotency import KEY
from anywire_gateway_openai.notes import REQUEST_ID
from anywire_gateway_openai.proxies import UNKNOWN, address_of, has_proxy_header
from anywire_gateway_openai.request_ids import HEADER
from anywire_gateway_openai.wire import WrittenResponse, open_transport, room

OWN = frozenset(
    (method, base + path)
    for base in BASES
    for method, path in (
        ("POST", "/chat/completions"),
        ("POST", "/chat/completions_stream"),
        ("POST", "/completions"),
        ("POST", "/embeddings"),
        ("GET", "/chat/completions"),
        ("GET", "/ws/chat"),
    )
) | {("OPTIONS", "*")}
"""What this process answers: tasks whose client waits, WebSockets among them."""
ITS_OWN = (
    KEY,
    istr("x-anywire-background"),
    istr("x-anywire-explain"),
    istr("x-anywire-parent"),
    istr("x-anywire-attempts"),
    istr("cache-control"),
)
"""Headers of tasks that mean something to the orchestrator's own process alone."""
NOT_WITH_A_SOCKET = (istr("x-anywire-parent"), istr("x-anywire-attempts"))
"""Those of them that mean something to the tasks of a WebSocket, too. Browsers send ``cache-control`` with one."""
CONNECT_TIMEOUT = 5.0
"""Seconds until a connection to the orchestrator must be there."""
MOST_CONNECTIONS = 1024
_BASE = "http://orchestrator"
_OF_A_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
"""Headers of one connection, in lower case; those that it names come to them."""
_OF_PROXIES = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "via"})
_SAYS_WHO = _OF_PROXIES | {"host", "origin"}
"""Headers by which it is told who asks: a client cannot take them away by calling them its connection's."""
_WITHOUT_BODY = (204, 304)

Headers = Iterable[tuple[str, str]]


class PassedOn:
    """Passes requests on to ``socket``. ``callers`` are those of this gateway, ``write_timeout`` the seconds that a
    client may take nothing of an answer. Close it."""

    def __init__(self, socket: Path, callers: Callers, write_timeout: float) -> None:
        self._socket, self._callers, self._write_timeout = str(socket), callers, write_timeout
        self._session: aiohttp.ClientSession | None = None

    @staticmethod
    def is_own(request: web.BaseRequest) -> bool:
        """Whether this process answers a request itself."""
        headers, others = request.headers, NOT_WITH_A_SOCKET if request.method == "GET" else ITS_OWN
        return (request.method, request.path) in OWN and not any(name in headers for name in others)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The orchestrator's answer. Raises `HttpError` where it is not there, and for a WebSocket, which cannot be
        passed on."""
        if request.method == "GET" and (request.method, request.path) in OWN:
            raise HttpError(
                400,
                "not_with_gateway_processes",
                f"a WebSocket cannot have {' or '.join(NOT_WITH_A_SOCKET)} here: leave it out, or post to "
                "chat/completions",
            )
        if "Expect" in request.headers:
            go_on(request)
        try:
            answer = await self._client().request(
                request.method,
                _url_of(request),
                headers=self._told(request),
                data=_body_of(request),
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise HttpError(
                503, "orchestrator_gone", "the orchestrator behind this gateway does not answer; try again"
            ) from error
        async with answer:
            return await self._written(request, answer)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._socket, limit=MOST_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    def _told(self, request: web.BaseRequest) -> CIMultiDict[str]:
        """The headers with which a request is passed on. Of a client's address the orchestrator is to know what this
        process would have gone by: a proxy's word where it is trusted, and otherwise that somebody spoke for it; so
        also where a trusted one names nobody."""
        headers, peer = request.headers, request._transport_peername
        trusted = self._callers.proxies.trusts(peer)
        # In lower case: aiohttp's client takes names of another case for others, and the last one would be left.
        passed = _between_ends(headers.items(), () if trusted else _OF_PROXIES)
        found = CIMultiDict((name.lower(), value) for name, value in passed)
        found[HEADER.lower()] = request[REQUEST_ID]
        found.setdefault("host", "")  # of HTTP/1.0; aiohttp's client would make one up, which is not of this machine
        if self._callers.is_rebound(request):
            return found  # no proxy is behind it, and it is no client of this machine either
        address = address_of(peer)
        if has_proxy_header(headers) and not self._callers.client(request).by_proxy:
            address = UNKNOWN
        shown = f'"[{address}]"' if ":" in address else address
        if trusted and "Forwarded" in headers:
            found.add("forwarded", f"for={shown}")
        if "Forwarded" not in found or "X-Forwarded-For" in headers:
            found.add("x-forwarded-for", address)
        if "X-Forwarded-Proto" not in found:
            found["x-forwarded-proto"] = request.scheme
        return found

    async def _written(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        with_body = request.method != "HEAD" and answer.status not in _WITHOUT_BODY
        is_measured = not with_body or "Content-Length" in answer.headers
        chunked = not is_measured and request.version == HttpVersion11
        keep_alive = request.keep_alive and (is_measured or chunked)
        head = "".join(f"{name}: {value}\r\n" for name, value in _between_ends(answer.headers.items()))
        framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
        connection = "Connection: keep-alive\r\n" if keep_alive else "Connection: close\r\n"
        start = f"HTTP/1.1 {answer.status} {answer.reason or ''}\r\n"
        data = f"{start}{head}{framing}{connection}\r\n".encode("utf-8", "surrogateescape")
        if with_body:
            while piece := await self._next(answer):
                await self._write(request, data + (b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece))
                data = b""
            if chunked:
                data += b"0\r\n\r\n"
        if data:
            await self._write(request, data)
        return WrittenResponse(keep_alive, answer.status)

    @staticmethod
    async def _next(answer: aiohttp.ClientResponse) -> bytes:
        """The next piece of an answer, empty at its end. Raises `ConnectionResetError` where the orchestrator breaks it
        off: the client must see that."""
        try:
            return await answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionResetError("the orchestrator has broken its answer off") from error

    async def _write(self, request: web.BaseRequest, data: bytes) -> None:
        transport = open_transport(request)
        transport.write(data)
        await room(request, transport, self._write_timeout)


def _between_ends(headers: Headers, without: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Those of ``headers`` that are for the other end, and not ``without``, names in lower case."""
    found = list(headers)
    named = {each.strip().lower() for name, value in found if name.lower() == "connection" for each in value.split(",")}
    left_out = _OF_A_CONNECTION | (named - _SAYS_WHO) | set(without)
    return ((name, value) for name, value in found if name.lower() not in left_out)


def _url_of(request: web.BaseRequest) -> URL:
    target = request.rel_url.raw_path_qs
    return URL(_BASE + (target if target.startswith("/") else f"/{target}"), encoded=True)


def _body_of(request: web.BaseRequest) -> AsyncIterator[bytes] | None:
    headers = request.headers
    has_one = "Transfer-Encoding" in headers or headers.get("Content-Length", "0").strip() != "0"
    return _pieces(request) if has_one else None


async def _pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    content = request.content
    while not content.at_eof():
        if piece := await content.readany():
            yield piece
