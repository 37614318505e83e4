"""Which web pages may use the gateway: a browser would let any site talk to a server on its user's own machine.

Browsers name the page's origin on everything that could do harm (a POST or DELETE to another site, every WebSocket);
other clients send none. The ``Host`` header proves nothing here: a site can give its name this machine's address.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from anywire_gateway_openai.caller import is_local_origin
from anywire_gateway_openai.errors import HttpError

ANY = "*"


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
    """Pages of this machine (``localhost`` and loopback addresses) may always; others only when they are listed."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)

    def check(self, origin: str) -> None:
        """Raises `HttpError` for the origin of a page that may not."""
        origin = origin.lower()
        if ANY in self._allowed or origin in self._allowed or is_local_origin(origin):
            return
        raise HttpError(
            403,
            "origin_not_allowed",
            f"pages of {origin[:256]!r} may not use this server; list that origin in the gateway's allowed_origins",
        )
