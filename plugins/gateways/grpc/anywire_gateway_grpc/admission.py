"""Who calls: the caller of each call, and the calls that end when its key goes."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from anywire.access import KEY_GONE, Access, Presented
from anywire.caller import Caller
from anywire.errors import InvalidRequest, QueueFull, Unauthenticated
from anywire.transport_tools import certificate_digest

MAX_TENANT_CHARS = 128
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
"""What proxies add: whoever is behind one may be anywhere."""

Context = grpc.aio.ServicerContext[Any, Any]


class _Call:
    """A call that goes on. ``gone`` once its key is."""

    __slots__ = ("gone", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task, self.gone = task, False


class Admission:
    """Lets callers in, at most ``most`` calls at once and half of them of one key. Close it."""

    def __init__(self, access: Access, most: int) -> None:
        self._access, self._most = access, most
        self._calls: dict[str, set[_Call]] = {}
        self._count = 0
        self.needs_key = access.needs_key
        self.close = access.listen(self._gone)

    def caller(self, context: Context) -> Caller:
        """Raises `Unauthenticated`, and `InvalidRequest` for a tenant that is none."""
        return self._access.caller(presented(context, self.needs_key))

    @contextmanager
    def within(self, caller: Caller) -> Iterator[None]:
        """A call of ``caller``: it is left with `Unauthenticated` when the key goes. Raises `QueueFull`."""
        own = self._calls.setdefault(caller.id, set())
        if self._count >= self._most or (caller.id and len(own) >= self._most // 2):
            raise QueueFull("too many calls are under way: come back later (gateways.grpc.max_calls)", retry_after=1)
        task = asyncio.current_task()
        assert task is not None
        call, cancelling = _Call(task), task.cancelling()
        own.add(call)
        self._count += 1
        try:
            yield
        except asyncio.CancelledError:
            if call.gone and task.uncancel() <= cancelling:
                raise Unauthenticated(KEY_GONE) from None
            raise
        finally:
            self._count -= 1
            own.discard(call)
            if not own and self._calls.get(caller.id) is own:
                del self._calls[caller.id]

    def _gone(self, caller_id: str) -> None:
        for call in list(self._calls.get(caller_id, ())):
            if not call.gone:
                call.gone = True
                call.task.cancel()


def presented(context: Context, needs_key: bool) -> Presented:
    """What a call shows of its client."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    peer = unquote(context.peer())
    local = is_local(peer) and not any(name in metadata for name in _FORWARDED)
    certificate = next((certificate_digest(each).hex() for each in _certificates(context)), "")
    if needs_key:
        return Presented(token=_token(metadata), certificate=certificate, local=local, peer=peer)
    return Presented(local=local, tenant=_tenant(metadata), certificate=certificate, peer=peer)


def is_local(peer: str) -> bool:
    """Whether a peer as gRPC names it (``ipv4:127.0.0.1:4711``) is on this machine for certain."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _token(metadata: Mapping[str, str]) -> str:
    given = metadata.get("authorization")
    if given is None:
        return metadata.get("x-api-key", "").strip()
    scheme, _, token = given.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("the metadata authorization must be: Bearer KEY")
    return token.strip()


def _tenant(metadata: Mapping[str, str]) -> str:
    tenant = metadata.get("x-anywire-tenant")
    if tenant is None:
        return ""
    if not 0 < len(tenant) <= MAX_TENANT_CHARS or not tenant.isprintable():
        raise InvalidRequest(f"the metadata x-anywire-tenant must have 1 to {MAX_TENANT_CHARS} printable characters")
    return tenant


def _certificates(context: Context) -> list[bytes]:
    return list(context.auth_context().get("x509_pem_cert", ()))
