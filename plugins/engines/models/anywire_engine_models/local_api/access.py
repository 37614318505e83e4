"""Who may use the routes: programs of this user, which can read the token's file, and pages of this machine that one of
these has given the token.

A browser lets any site send requests to this machine. Such a site has no token; and it is refused before that: it names
itself in ``Origin``, and where its name was made to lead here, in ``Host``.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from anywire.errors import Unauthenticated
from anywire.transport_tools import is_loopback
from anywire_engine_models.local_api.api_errors import HttpError

MAX_AGE_S = 600
"""Seconds for which a browser need not ask again what a page may send."""


def check_host(host: str) -> None:
    """Raises `HttpError` unless ``host`` (a ``Host`` header) names this machine."""
    if not _is_here(f"//{host}"):
        raise HttpError(
            403, "host_not_allowed", f"these routes are for this machine alone: ask 127.0.0.1, not {host[:256]!r}"
        )


def check_origin(origin: str) -> None:
    """Raises `HttpError` for the ``Origin`` of a page that is not of this machine."""
    if not _is_here(origin):
        raise HttpError(403, "origin_not_allowed", f"pages of {origin[:256]!r} may not use these routes")


def check_token(authorization: str, token: str) -> None:
    """Raises `Unauthenticated` unless an ``Authorization`` header shows ``token``."""
    scheme, _, shown = authorization.partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(errors="replace"), token.encode()):
        raise Unauthenticated(
            "send the header Authorization: Bearer TOKEN with the token of this agent's file in the folder "
            "anywire/models of your runtime folder"
        )


def page_headers(origin: str) -> dict[str, str]:
    """What a browser wants to see in an answer to a page of ``origin``."""
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "*", "Vary": "Origin"}


def preflight_headers(asked: Mapping[str, str], methods: str) -> dict[str, str]:
    """What a browser wants to see before a page may send one of ``methods``."""
    headers = {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": "authorization, content-type, last-event-id, x-anywire-progress",
        "Access-Control-Max-Age": str(MAX_AGE_S),
    }
    if asked.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers


def _is_here(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    # No site can give itself a name below .localhost.
    return is_loopback(host) or host.endswith(".localhost")
