"""Who a client is by its key, its certificate, its user or its token: `anywire.access.Access` with keys."""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from anywire.access import KnownKey, Presented
from anywire.boundary import Boundary
from anywire.caller import OPERATOR, Caller
from anywire.clock import Clock, SystemClock, Timer
from anywire.errors import ConfigError, Unauthenticated
from anywire.event_bus import EventBus
from anywire.events import ConfigReloaded, KeyChanged
from anywire.files.watched_files import WatchedFiles
from anywire.keys.issuer_tokens import IssuerTokens
from anywire.keys.key_records import KeyRecord, by_certificate, read_keys, record_of
from anywire.keys.key_text import KeyText, is_key_id, looks_like_key, new_key, read_key, secret_digest

log = logging.getLogger(__name__)

LONGEST_WAIT = 3600.0
"""Seconds after which the time of day is looked at again: it may have been set."""
_NOBODY = "0" * 64
"""Compared with where there is no such key, so that it takes as long."""


class KeyAccess:
    """`anywire.access.Access` with the keys of the file ``path``, and with a key of its own for this run.

    The file is read by the constructor, which raises `ConfigError`, and again whenever it changes between `start` and
    `close`. A file that cannot be read then is logged as an error, and what it said before goes on to count.
    ``tokens`` are those of an issuer, taken beside keys; one that runs out ends nothing that runs. With
    ``every_certificate`` a client certificate that no key stands for is let in too, as a tenant of its own with the
    role ``use``: the authorities of TLS decide then. ``bus`` is told of keys that
    change. ``clock`` times the end of keys, ``now`` tells the Unix time.
    """

    needs_key = True

    def __init__(
        self,
        path: Path | None = None,
        *,
        tokens: IssuerTokens | None = None,
        every_certificate: bool = False,
        bus: EventBus | None = None,
        clock: Clock | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._tokens, self._every_certificate = path, tokens, every_certificate
        self._bus = bus or EventBus(Boundary())
        self._clock, self._now, self._runs = clock or SystemClock(), now, False
        self._own = new_key()
        self._listeners: dict[object, Callable[[str], None]] = {}
        self._timer: Timer | None = None
        self._watched = WatchedFiles([path] if path is not None else [], self._read)
        self._keys: dict[str, KeyRecord] = {}
        self._callers: dict[str, Caller] = {}
        self._certificates: dict[str, KeyRecord] = {}
        self._public_keys: dict[str, KeyRecord] = {}
        self._live: dict[str, KeyRecord] = {}
        self._take(read_keys(path) if path is not None else {})

    @property
    def own_key(self) -> str:
        """A key with the role ``operate`` for other commands of this user. It is kept in memory and ends with this
        process."""
        return str(self._own)

    async def start(self) -> None:
        """Begin to follow changes."""
        self._runs = True
        self._end_those_gone()
        if self._path is not None:
            self._watched.start()
        if self._tokens is not None:
            await self._tokens.start()

    async def close(self) -> None:
        self._runs = False
        await self._watched.close()
        if self._tokens is not None:
            await self._tokens.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def caller(self, presented: Presented) -> Caller:
        """Who this is. Raises `Unauthenticated`, whose sentence repeats nothing of what was presented.

        A key or token counts first, and one that does not count is refused, whatever else is shown. A client that
        sends a text which is no key (many must send one) is known by its certificate or, on a Unix socket, by its user.
        """
        if key := read_key(presented.token):
            return self._by_key(key)
        if presented.public_key:
            return self.by_public_key(presented.public_key)
        if self._tokens is not None and presented.token.count(".") == 2:
            return self._tokens.caller(presented.token)
        if not looks_like_key(presented.token):
            if presented.certificate:
                return self._by_certificate(presented.certificate)
            if presented.uid is not None and presented.uid == os.getuid():
                return OPERATOR
        if presented.token:
            raise Unauthenticated("this is no key of this server: `anywire keys create` makes one")
        raise Unauthenticated("a key is needed: send it as `Authorization: Bearer KEY`")

    def by_public_key(self, public_key: bytes) -> Caller:
        """Who has proved, by a signature, that it has the key from which this Ed25519 key follows. Raises
        `Unauthenticated`."""
        return self._counting(self._public_keys.get(public_key.hex()), "the key of this client")

    def known_keys(self) -> Sequence[KnownKey]:
        now = self._now()
        return [
            KnownKey(
                each.id,
                each.state(now),
                label=each.label,
                tenant=each.caller.tenant,
                role=each.role,
                limits=each.limits,
                created=each.created,
                expires=each.expires,
                revoked=each.revoked,
                certificate=bool(each.certificate),
                invites=each.invites,
            )
            for each in self._keys.values()
            if each.id != self._own.id
        ]

    def inviter(self, public_key: bytes) -> str:
        record = self._public_keys.get(public_key.hex())
        return record.id if record is not None and record.invites and record.state(self._now()) == "active" else ""

    def is_revoked(self, key_id: str) -> bool:
        record = self._keys.get(key_id)
        return record is None or bool(record.revoked)

    def still(self, caller: Caller) -> Caller | None:
        record = self._keys.get(caller.id)
        if record is None:
            return None if is_key_id(caller.id) else caller
        return self._callers[record.id] if record.state(self._now()) == "active" else None

    def listen(self, gone: Callable[[str], None]) -> Callable[[], None]:
        handle = object()
        self._listeners[handle] = gone

        def end() -> None:
            self._listeners.pop(handle, None)

        return end

    def _by_key(self, key: KeyText) -> Caller:
        record = self._keys.get(key.id)
        # Always a whole comparison, of what an attacker cannot choose: the digests.
        is_right = hmac.compare_digest(secret_digest(key.secret), (record and record.digest) or _NOBODY)
        return self._counting(record if is_right else None, "this key")

    def _by_certificate(self, fingerprint: str) -> Caller:
        record = self._certificates.get(fingerprint)
        if record is None and self._every_certificate:
            name = f"certificate:{fingerprint}"
            return Caller(name, name)
        return self._counting(record, "this client certificate")

    def _counting(self, record: KeyRecord | None, what: str) -> Caller:
        """The caller with this record if that counts now."""
        if record is None:
            raise Unauthenticated(f"{what} is not known here")
        if record.revoked:
            raise Unauthenticated(f"{what} is revoked")
        if 0 < record.expires <= self._now():
            raise Unauthenticated(f"{what} has run out")
        return self._callers[record.id]

    def _read(self) -> None:
        assert self._path is not None
        try:
            found = read_keys(self._path)
        except ConfigError as error:
            log.error("the keys stay as they were: %s", error)
            self._bus.publish(ConfigReloaded, what="keys", error=str(error))
            return
        before = self._keys
        self._take(found)
        self._bus.publish(ConfigReloaded, what="keys")
        for each in found.values():
            old = before.get(each.id)
            if old is None:
                self._tell(each, "created")
            elif old != each and each.state(self._now()) == "active":
                self._tell(each, "changed")
        log.info("the keys in %s have changed: %d", self._path, len(found))

    def _take(self, keys: dict[str, KeyRecord]) -> None:
        """Let these keys and that of this run count from now on."""
        own = record_of(self._own, label="this run", role="operate")
        self._keys = keys | {own.id: own}
        self._callers = {each.id: each.caller for each in self._keys.values()}
        self._callers[own.id] = msgspec.structs.replace(OPERATOR, id=own.id)
        self._certificates = by_certificate(self._keys)
        self._public_keys = {each.public_key: each for each in self._keys.values() if each.public_key}
        self._end_those_gone()

    def _tell(self, record: KeyRecord, state: str) -> None:
        caller = record.caller
        self._bus.publish(KeyChanged, key_id=caller.id, state=state, key_tenant=caller.tenant, key_role=caller.role)

    def _end_those_gone(self) -> None:
        """Tell of every key that counted and does so no more, and do it again when the next one runs out."""
        now = self._now()
        live = {each.id: each for each in self._keys.values() if each.state(now) == "active"}
        gone, self._live = [each for each in self._live.values() if each.id not in live], live
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ends = [each.expires for each in self._keys.values() if each.id in live and each.expires]
        if ends and self._runs:
            self._timer = self._clock.call_later(min(min(ends) - now, LONGEST_WAIT), self._end_those_gone)
        for each in gone:
            ended = self._keys[each.id].state(now) if each.id in self._keys else "revoked"
            log.info("the key %s counts no more: it is %s", each.id, ended)
            self._tell(each, ended)
            for listener in list(self._listeners.values()):
                try:
                    listener(each.id)
                except Exception:
                    log.exception("the end of the key %s is not heeded", each.id)
