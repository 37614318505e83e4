"""Which web pages may use the gateway: a browser would let any site talk to a server on its user's own machine.

Browsers name the page's origin on everything that could do harm (a POST or DELETE to another site, every WebSocket);
other clients send none. The ``Host`` header proves nothing here: a site can give its name this machine's address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from aiohttp import web

from anywire_gateway_openai.caller import is_local_origin
from anywire_gateway_openai.errors import HttpError
from anywire_gateway_openai.headers import header_text
from anywire_gateway_openai.notes import HEADERS
from anywire_gateway_openai.wire import WrittenResponse

ANY = "*"
MAX_AGE_S = 600
"""Seconds for which a browser need not ask again."""
EXPOSED = (
    "*, x-request-id, retry-after, retry-after-ms, x-should-retry, x-anywire-task, x-anywire-agent, "
    "x-anywire-transport, x-anywire-attempts, x-anywire-model, x-anywire-stages, x-anywire-ignored, x-anywire-origin, "
    "x-anywire-decision, x-anywire-replayed, x-anywire-estimated, x-anywire-cache, x-anywire-cache-similarity, "
    "x-anywire-fallback, x-anywire-trace, request-id"
)
"""Headers of an answer that a page may read. Browsers take the star for no name where credentials are sent."""


def checked_origin(text: str) -> str:
    """``text`` as browsers write an origin. Raises `ValueError` when it is none."""
    origin = text.lower().rstrip("/")
    if origin == ANY:
        return origin
    parts = urlsplit(origin)
    if not parts.scheme or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no origin such as https://chat.example.org, and not {ANY!r} for every page")
    return origin


class Origins:
    """Pages of this machine (``localhost`` and loopback addresses) may always, and pages of the server itself; others
    only when they are listed."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)

    def check(self, origin: str, own: str = "") -> None:
        """Raises `HttpError` for the origin of a page that may not. ``own`` is the server's own address, where a page
        of that origin can be its own alone; empty where it need not be."""
        origin = origin.lower()
        if ANY in self._allowed or origin in self._allowed or is_local_origin(origin) or origin == own.lower() != "":
            return
        raise HttpError(
            403,
            "origin_not_allowed",
            f"pages of {origin[:256]!r} may not use this server; list that origin in the gateway's allowed_origins",
        )


def page_headers(origin: str) -> tuple[tuple[str, str], ...]:
    """What a browser wants to see in an answer to a page of ``origin``, which may use the gateway."""
    return (
        ("Access-Control-Allow-Origin", header_text(origin)),
        ("Access-Control-Expose-Headers", EXPOSED),
        ("Vary", "Origin"),
    )


def preflight_headers(asked: Mapping[str, str], methods: str) -> dict[str, str]:
    """The same for the question that a browser sends before a request: whether it may send one of ``methods`` with the
    headers it names."""
    headers = {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": header_text(asked.get("Access-Control-Request-Headers", "*")),
        "Access-Control-Max-Age": str(MAX_AGE_S),
    }
    if asked.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers


async def answer_options(allowed: str, request: web.BaseRequest) -> web.StreamResponse:
    """Which methods a path answers; also what a browser asks before a page's request."""
    headers = {"Allow": allowed, "Server": "anywire"}
    if "Origin" in request.headers:
        headers |= preflight_headers(request.headers, allowed)
    return web.Response(status=204, headers=headers)


def with_headers(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
    """``response`` with the headers that every answer to ``request`` has, unless its head is on its way already."""
    if not isinstance(response, WrittenResponse) and not response.prepared:
        response.headers.update(request.get(HEADERS, ()))
    return response
