"""Who sends a request: the one place where a `Caller` is found for it."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web

from anywire.caller import OPERATOR, Caller
from anywire.errors import InvalidRequest

MAX_TENANT_CHARS = 128
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
"""Headers of a proxy: whoever is behind it need not be on this machine."""


def caller_of(request: web.BaseRequest) -> Caller:
    """The caller of a request, as long as no keys are configured.

    Peers on loopback addresses and Unix sockets have the role ``operate``, unless they are proxies of others, web pages
    from elsewhere, or ask for a host of another name: a web page elsewhere can let its own name lead here, and its
    browser sends no ``Origin`` then. All others have ``use``. The header ``x-anywire-tenant`` names the tenant. Raises
    `InvalidRequest` for a tenant that is empty, too long or not printable.
    """
    headers = request.headers
    local = is_local_peer(request._transport_peername)
    if local:
        origin = headers.get("Origin")
        local = (
            (origin is None or is_local_origin(origin))
            and _is_local_authority(headers.get("Host", ""))
            and not any(name in headers for name in FORWARDED)
        )
    tenant = headers.get("x-anywire-tenant")
    if tenant is None:
        return OPERATOR if local else Caller()
    if not 0 < len(tenant) <= MAX_TENANT_CHARS or not tenant.isprintable():
        raise InvalidRequest(
            f"header x-anywire-tenant must have 1 to {MAX_TENANT_CHARS} printable characters, got {tenant[:64]!r}",
            param="x-anywire-tenant",
        )
    return Caller("", tenant, "operate" if local else "use")


def is_rebound(request: web.BaseRequest) -> bool:
    """Whether a request from this machine asks for a host of another name, and came by no proxy that says so: a web
    page elsewhere may have let its own name lead here, and would read the answer."""
    headers = request.headers
    return (
        is_local_peer(request._transport_peername)
        and not _is_local_authority(headers.get("Host", ""))
        and not any(name in headers for name in FORWARDED)
    )


def is_local_peer(peer: object) -> bool:
    """Whether a socket's peer name is of this machine's loopback, or of a Unix socket."""
    if isinstance(peer, tuple | list):
        return bool(peer) and isinstance(peer[0], str) and _is_loopback(peer[0])
    return isinstance(peer, str | bytes)


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@lru_cache(maxsize=256)
def _is_local_authority(authority: str) -> bool:
    """Whether a ``Host`` header names this machine; an empty one names nothing else."""
    return not authority or is_local_origin(f"//{authority}")


def is_local_origin(origin: str) -> bool:
    """Whether a web page's origin is this machine."""
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host)
