"""Who sends a request: the one place where a `Caller` is found for it, and where it is refused without one."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.web import RequestKey
from multidict import istr

from anywire.access import Access, Presented
from anywire.caller import Caller, Role
from anywire.errors import Forbidden, InvalidRequest, Unauthenticated
from anywire.listening.connection_proof import NO_PROOF, ConnectionProof
from anywire_gateway_openai.proxies import Client, Proxies, address_of, has_proxy_header, is_address, is_local_address
from anywire_gateway_openai.revocation import Revocations

MAX_TENANT_CHARS = 128
KEY_PROTOCOL = "anywire-key."
"""Begins a WebSocket subprotocol that holds a key: a browser can set no header there."""
_AUTHORIZATION, _PROTOCOLS, _ORIGIN = istr("Authorization"), istr("Sec-WebSocket-Protocol"), istr("Origin")
_KEY_HEADERS = (istr("x-api-key"), istr("api-key"))
SECRET_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "sec-websocket-protocol"})
"""Headers that hold a key, in lower case."""
_HOST, _TENANT = istr("Host"), istr("x-anywire-tenant")
_IN_URL = re.compile(r"(?:^|[&;])(?:api[-_]?key|access_token)=|=aw-[a-z2-7]{12}-", re.IGNORECASE)
REMEMBERED_S = 1.0
"""Seconds for which a connection's key is not asked about again."""
_OPEN = Presented()
_LOCAL = Presented(local=True)

CALLER: Final = RequestKey("anywire_caller", Caller)
"""Who was let in with a request."""
_ROUND: Final = RequestKey("anywire_round", int)
"""How many keys had gone when it was let in."""


class LastKey:
    """The key that was shown last on a connection, and whose it is, for `REMEMBERED_S` seconds or until a key goes."""

    __slots__ = ("_rounds", "_token", "_until", "caller")

    def __init__(self, token: str, caller: Caller, rounds: int, until: float) -> None:
        self.caller, self._token, self._rounds, self._until = caller, token, rounds, until

    def is_still(self, token: str, rounds: int, now: float) -> bool:
        """Whether ``token`` is the same, and counts as it did. Comparing takes the same time for every token: clients
        of one proxy share a connection."""
        return rounds == self._rounds and now < self._until and hmac.compare_digest(token, self._token)


class Connection(Protocol):
    """What a gateway's connections have."""

    proof: ConnectionProof
    last_key: LastKey | None


class Callers:
    """Who the clients of one gateway are. ``access`` decides it; ``trusted_proxies`` speak for others. Close it."""

    def __init__(self, access: Access, trusted_proxies: Iterable[str] = ()) -> None:
        self.needs_key = access.needs_key
        self.proxies = Proxies(trusted_proxies)
        self.revocations = Revocations(access)
        self._access = access

    def close(self) -> None:
        self.revocations.close()

    def admit(self, request: web.BaseRequest, role: Role, *, always: bool = True) -> Caller:
        """Let the caller of ``request`` in where ``role`` is needed, before anything of the body is read; with
        ``always`` false the role counts only where keys are needed.

        Raises `Unauthenticated`, `Forbidden`, and `InvalidRequest` for a key in the URL, or a tenant that is empty, too
        long or not printable.
        """
        caller = self._found(request)
        if (always or self.needs_key) and not caller.has_role(role):
            raise Forbidden(f"{request.path[:256]} is for the role {role}, this caller has {caller.role}")
        request[CALLER] = caller
        if self.needs_key:
            request[_ROUND] = self.revocations.rounds
        return caller

    def still(self, request: web.BaseRequest) -> Caller:
        """The caller that `admit` has let in; asked for again where keys have gone since. Raises `Unauthenticated`."""
        if self.needs_key and request[_ROUND] != self.revocations.rounds:
            request[_ROUND] = self.revocations.rounds
            return self.again(request)
        return request[CALLER]

    def again(self, request: web.BaseRequest) -> Caller:
        """Who the caller of ``request`` is now, for what goes on after its answer has begun: its limits may have
        changed, and its token run out. Raises `Unauthenticated`."""
        if self.needs_key:
            request[CALLER] = self._found(request)
        return request[CALLER]

    def is_known(self, request: web.BaseRequest) -> bool:
        """Whether more than what is public is told: always, where nobody needs a key."""
        if not self.needs_key:
            return True
        try:
            self._found(request)
        except (Unauthenticated, InvalidRequest):
            return False
        return True

    def client(self, request: web.BaseRequest) -> Client:
        """Where a request comes from."""
        return self.proxies.client(request._transport_peername, request.headers)

    def base_url(self, request: web.BaseRequest) -> str:
        """The address of the server as the client of ``request`` knows it; empty where it names none."""
        return self.proxies.base_url(request._transport_peername, request.headers, request.scheme)

    def own_origin(self, request: web.BaseRequest) -> str:
        """The origin of the pages that this server gives to the client of ``request``; empty where a page of elsewhere
        could have that origin too, by letting its own name lead here. It gains nothing where it needs a key, and an
        address is no name."""
        url = self.base_url(request)
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return ""
        if not host or not (self.needs_key or is_address(host)):
            return ""
        return url.removesuffix(":443" if url.startswith("https:") else ":80")

    def is_rebound(self, request: web.BaseRequest) -> bool:
        """Whether a request from this machine asks for a host of another name, and came by no proxy that says so: a web
        page elsewhere may have let its own name lead here, and would read the answer. It has no key."""
        headers = request.headers
        return (
            not self.needs_key
            and is_local_peer(request._transport_peername)
            and not _is_local_authority(headers.get(_HOST, ""))
            and not has_proxy_header(headers)
        )

    def _found(self, request: web.BaseRequest) -> Caller:
        if not self.needs_key:
            return self._access.caller(self._presented_without_key(request))
        query = request.query_string
        if query and _IN_URL.search(query):
            raise InvalidRequest(
                "a key in a URL stays in logs and histories: send it as the header Authorization: Bearer KEY, and "
                "revoke one that was sent so",
                detail_code="key_in_url",
            )
        token = token_of(request)
        if not token or has_proxy_header(request.headers) or not token.isascii():
            return self._asked(request, token)
        connection, now = cast("Connection", request.protocol), time.monotonic()
        last = connection.last_key
        if last is None or not last.is_still(token, self.revocations.rounds, now):
            last = LastKey(token, self._asked(request, token), self.revocations.rounds, now + REMEMBERED_S)
            connection.last_key = last
        return last.caller

    def _asked(self, request: web.BaseRequest, token: str) -> Caller:
        client = self.client(request)
        # What a connection proves is said of a proxy where one speaks for others.
        proof = NO_PROOF if client.by_proxy else cast("Connection", request.protocol).proof
        return self._access.caller(
            Presented(
                token=token,
                certificate=proof.certificate,
                uid=None if has_proxy_header(request.headers) else proof.uid,
                local=self._is_local(request, client),
                peer=client.address,
            )
        )

    def _presented_without_key(self, request: web.BaseRequest) -> Presented:
        local = self._is_local(request, self.client(request) if self.proxies.any else None)
        tenant = request.headers.get(_TENANT)
        if tenant is None:
            return _LOCAL if local else _OPEN
        if not 0 < len(tenant) <= MAX_TENANT_CHARS or not tenant.isprintable():
            raise InvalidRequest(
                f"header x-anywire-tenant must have 1 to {MAX_TENANT_CHARS} printable characters, got {tenant[:64]!r}",
                param="x-anywire-tenant",
            )
        return Presented(local=local, tenant=tenant)

    @staticmethod
    def _is_local(request: web.BaseRequest, client: Client | None) -> bool:
        """Whether a request is of this machine for certain. Peers on loopback addresses and Unix sockets are, unless
        they are proxies of others, web pages from elsewhere, or ask for a host of another name: a web page elsewhere
        can let its own name lead here, and its browser sends no ``Origin`` then."""
        if not (is_local_peer(request._transport_peername) if client is None else client.is_local):
            return False
        headers = request.headers
        origin = headers.get(_ORIGIN)
        if origin is not None and not is_local_origin(origin):
            return False
        if not _is_local_authority(headers.get(_HOST, "")):
            return False
        return (client is not None and client.by_proxy) or not has_proxy_header(headers)


def token_of(request: web.BaseRequest) -> str:
    """The key that a client shows, empty without: as ``Authorization: Bearer``, ``x-api-key``, ``api-key``, or in a
    WebSocket's subprotocol. Raises `Unauthenticated` for another scheme than Bearer."""
    headers = request.headers
    given = headers.get(_AUTHORIZATION)
    if given is not None:
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("the header Authorization must be: Bearer KEY")
        return token.strip()
    for name in _KEY_HEADERS:
        given = headers.get(name)
        if given is not None:
            return given.strip()
    for protocol in headers.get(_PROTOCOLS, "").split(","):
        protocol = protocol.strip()
        if protocol.startswith(KEY_PROTOCOL):
            return protocol.removeprefix(KEY_PROTOCOL)
    return ""


def is_local_peer(peer: object) -> bool:
    """Whether a socket's peer name is of this machine's loopback, or of a Unix socket."""
    return is_local_address(address_of(peer))


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
    return host == "localhost" or host.endswith(".localhost") or is_local_address(host)
