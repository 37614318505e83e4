"""Who a client is: what it shows of itself, and the caller that it becomes.

A gateway collects what its protocol carries into a `Presented` and asks `Access.caller`; it decides nothing itself. On
the client plane the core asks, for each link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from anywire.caller import NO_LIMITS, OPERATOR, Caller, Limits, Role
from anywire.errors import ConfigError

KEY_GONE = "this key counts no more: it was revoked, or has run out"
"""What ends with `Unauthenticated` when a key goes, says so."""


class Presented(msgspec.Struct, frozen=True):
    """What a client has shown. Whatever it claims is untrusted; what a gateway has found out itself is not.

    ``token`` is the credential it sent (``Authorization: Bearer``), ``certificate`` the SHA-256 fingerprint
    (hexadecimal) of the client certificate that TLS has verified, ``uid`` the user at the other end of a Unix socket.
    ``local`` is whether it is on this machine for certain: by loopback, through no proxy, no web page of elsewhere.
    ``tenant`` is what it calls itself (``x-anywire-tenant``), which counts only without keys. ``peer`` names it in
    the log. ``public_key`` is the Ed25519 key whose private half the client has, as its signature has shown
    (`anywire.identities.identity_proof`): a client of the client plane sends that in place of a token.
    """

    token: str = ""
    certificate: str = ""
    uid: int | None = None
    local: bool = False
    tenant: str = ""
    peer: str = ""

    def __repr__(self) -> str:
        return f"Presented(peer={self.peer!r}, token={'***' if self.token else ''!r})"

    public_key: bytes = b""


class KnownKey(msgspec.Struct, frozen=True):
    """A key as it may be shown to an operator: nothing that somebody could let himself in with.

    ``state`` is ``active``, ``revoked`` or ``expired``; times are Unix times in seconds, 0 for never. ``tenant`` is the
    one that counts, ``certificate`` whether a client certificate stands for the key. Whoever has one that ``invites``
    may bring in agents too.
    """

    id: str
    state: str
    label: str = ""
    tenant: str = ""
    role: Role = "use"
    limits: Limits = NO_LIMITS
    created: float = 0.0
    expires: float = 0.0
    revoked: float = 0.0
    certificate: bool = False
    invites: bool = False


@runtime_checkable
class ListsKeys(Protocol):
    """An `Access` that knows its keys. Others, as without keys, have no list."""

    def known_keys(self) -> Sequence[KnownKey]:
        """The keys of clients as they are now, in the order of their file, without that of this run."""
        ...


class Access(Protocol):
    """One orchestrator's decision who may come in. Used on the event loop; no call waits for anything."""

    @property
    def needs_key(self) -> bool:
        """Whether anybody needs a key here; without keys everybody is let in."""
        ...

    def caller(self, presented: Presented) -> Caller:
        """Who this is, with its role and limits. Raises `Unauthenticated`, whose sentence repeats nothing of what was
        presented. Comparing takes the same time for every key."""
        ...

    def still(self, caller: Caller) -> Caller | None:
        """Somebody who was let in earlier, perhaps by an earlier process, as its key would let it in now; None when
        that counts no more, as the key that an earlier run had for itself. Whoever came without a key (with a token of
        an issuer, by its user) stays as it was."""
        ...

    def listen(self, gone: Callable[[str], None]) -> Callable[[], None]:
        """Call ``gone`` with the id of a caller whenever its key is revoked or runs out; returns what ends that."""
        ...


class RunAccess(Access, Protocol):
    """An `Access` as the orchestrator's role runs it. Gateways and services see an `Access`."""

    @property
    def own_key(self) -> str:
        """The key of this run for other commands of the same user; empty where none is needed."""
        ...

    def inviter(self, public_key: bytes) -> str:
        """The id of the key from which that Ed25519 key follows, if it counts now and may invite; empty otherwise."""
        ...

    def is_revoked(self, key_id: str) -> bool:
        """Whether the key of that id was revoked or is not known; False for one that has run out."""
        ...

    async def start(self) -> None:
        """Follow changes from now on. Called once, by the orchestrator's role."""
        ...

    async def close(self) -> None:
        """Release everything. Safe to call twice, and without `start`."""
        ...


class OpenAccess:
    """`Access` without keys: who is on this machine is ``operate``, everybody else ``use``."""

    needs_key = False
    own_key = ""

    def inviter(self, public_key: bytes) -> str:
        return ""

    def is_revoked(self, key_id: str) -> bool:
        return True

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def caller(self, presented: Presented) -> Caller:
        if not presented.tenant:
            return OPERATOR if presented.local else Caller()
        return Caller("", presented.tenant, "operate" if presented.local else "use")

    def still(self, caller: Caller) -> Caller | None:
        return caller

    def listen(self, gone: Callable[[str], None]) -> Callable[[], None]:
        return lambda: None


def check_keyless(access: Access, gateway: str, clients: str, keyless: bool) -> None:
    """Called when a gateway starts some of whose clients (``clients``, such as ``DDS``) have no way to show a key.
    ``keyless`` is its setting of that name. Raises `ConfigError` where keys are needed and it is false."""
    if access.needs_key and not keyless:
        raise ConfigError(
            f"clients need keys here, and {clients} clients of the gateway {gateway} cannot show one: set "
            f"gateways.{gateway}.keyless: true to let whoever reaches it in with the role use, or leave it out"
        )
