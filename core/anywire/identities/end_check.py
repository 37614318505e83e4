"""The one place where it is decided which agents and orchestrators are let in, by their proofs of identity."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from anywire.errors import ConfigError
from anywire.event_bus import EventBus
from anywire.events import AdmissionChanged, ConfigReloaded
from anywire.files.watched_files import WatchedFiles
from anywire.identities.admitted import Admitted, AdmittedEnd, EndRole, change_admitted, read_admitted
from anywire.identities.identity_proof import Proof, read_proof
from anywire.messages import AgentInfo, HubInfo
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire.transport import Plane

log = logging.getLogger(__name__)

NOT_ADMITTED = "not_admitted"
"""The ``detail_code`` with which an agent refuses tasks of an orchestrator that it does not let in."""
MAX_WAITING = 100
"""Ends that were refused and are remembered, the newest."""


class WaitingEnd(msgspec.Struct, frozen=True):
    """One that was refused: ``fingerprint`` is empty where it has shown no key. ``reason`` is part of a sentence."""

    fingerprint: str
    role: EndRole
    id: str
    host: str
    reason: str
    refused: float
    """Unix time in seconds."""


class Inviters(Protocol):
    """Which keys of clients invite agents; see `anywire.access.RunAccess`."""

    def inviter(self, public_key: bytes) -> str: ...

    def is_revoked(self, key_id: str) -> bool: ...


class EndCheck:
    """Lets in whom the file ``path`` admits, and who has the key with the fingerprint ``own``: this process and others
    of the same configuration. The file is read by the constructor, which raises `ConfigError`, and whenever it
    changes between `start` and `close`; while it cannot be read, what it said before counts.

    An id belongs to the first key that has joined with it, which is written into the file, unless `anywire agents
    admit` has named the ids of the key. Roles of one process share one: each calls `start` and `close`.

    With ``inviters`` an agent that is not known is admitted for good, and written into the file, when a key that
    invites vouches for it. It counts until it is revoked itself, or that key.
    """

    def __init__(self, path: Path, own: str = "") -> None:
        self._path, self._own = path, own
        self._listeners: dict[object, Callable[[], None]] = {}
        self._buses: dict[object, EventBus] = {}
        self._waiting: dict[tuple[str, str], WaitingEnd] = {}
        self._once = OnceLog(log)
        self.inviters: Inviters | None = None
        self._unwritten: dict[str, str] = {}
        """Keys by the ids that they have been bound to and that the file does not say yet."""
        self._uninvited: dict[str, str] = {}
        """The keys that have invited, by those of the ends whom the file does not name yet."""
        self._writing: asyncio.Task[None] | None = None
        self._users = 0
        self._watched = WatchedFiles([path], self._read)
        self._admitted = read_admitted(path)
        self.refused = 0
        """How often somebody was refused."""

    @property
    def waiting(self) -> list[WaitingEnd]:
        """Who was refused and has not been let in since, the newest last."""
        return list(self._waiting.values())

    def start(self) -> None:
        """Begin to follow the file. Call it on the event loop."""
        self._users += 1
        if self._users == 1:
            self._watched.start()

    async def close(self) -> None:
        """Follow the file no more once all who have started it have closed it; what was bound is written."""
        self._users -= 1
        if self._users == 0:
            await self._watched.close()
            if self._writing is not None:
                await self._writing

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` whenever somebody may have been admitted or revoked; returns what ends that."""
        key = object()
        self._listeners[key] = changed
        return lambda: self._listeners.pop(key, None) and None

    def publish_to(self, events: EventBus) -> Callable[[], None]:
        """Publish to ``events`` who is admitted, bound, refused and revoked from now on; returns what ends that."""
        key = object()
        self._buses[key] = events

        def end() -> None:
            self._buses.pop(key, None)

        return end

    def reconsider(self) -> None:
        """Ask again who is let in: what `inviters` say has changed."""
        self._once.reset()
        for listener in list(self._listeners.values()):
            listener()

    def refusal(self, plane: Plane, info: AgentInfo | HubInfo, *, verified: bool = False) -> str:
        """Why this end may not be linked, as part of a sentence for both ends; empty when it may. Clients are none of
        its business: `anywire.access.Access` is asked for them. ``verified`` is whether the signature of its proof
        was found good before. Never raises."""
        is_hub = isinstance(info, HubInfo)
        if is_hub and plane == "client":
            return ""
        role: EndRole = "orchestrator" if is_hub or plane == "client" else "agent"
        end_id = info.hub_id if isinstance(info, HubInfo) else info.agent_id
        proof = read_proof(info.proof)
        shown = ""
        if not end_id.isprintable():
            reason = "its id is not printable"
        elif proof is None:
            reason = "it shows no identity (identity.key)"
        elif not (verified or proof.is_valid(plane, "hub" if is_hub else "agent", end_id, info.incarnation)):
            reason = "its proof of identity is not valid"
        else:
            shown = proof.fingerprint
            admitted, is_own = self._admitted, shown == self._own
            if is_own:
                reason = admitted.taken(shown, end_id)
            else:
                if role == "agent" and proof.inviter and self._may_be_invited(shown):
                    self._invite(proof)
                    admitted = self._admitted
                reason = admitted.refusal(shown, role, end_id) or self._refusal_of_inviter(shown)
        if not reason:
            self._bind(shown, end_id)
            self._waiting.pop((shown, end_id), None)
            return ""
        self._note(shown, role, end_id, info.host, reason)
        return reason

    # Inside

    def _may_be_invited(self, shown: str) -> bool:
        found = self._admitted.ends.get(shown)
        return found is None or (not found.revoked and bool(self._refusal_of_inviter(shown)))

    def _invite(self, proof: Proof) -> None:
        """Admit whom a key that invites vouches for."""
        key_id = self.inviters.inviter(proof.inviter) if self.inviters is not None else ""
        if not key_id or not proof.is_vouched:
            return
        before, shown = self._admitted, proof.fingerprint
        self._admitted = before.with_invited(shown, key_id, time.time())
        if self._admitted is before:
            self._once.warn(key_id, "the key %s has invited as many agents as it may: make another invitation", key_id)
            return
        log.info("the key %s has invited an agent: it is admitted as %s", key_id, shown)
        self._publish(shown, "agent", "admitted")
        self._uninvited[shown] = key_id
        self._write_soon()

    def _refusal_of_inviter(self, shown: str) -> str:
        key_id = self._admitted.ends[shown].invited
        if not key_id or (self.inviters is not None and not self.inviters.is_revoked(key_id)):
            return ""
        return f"the invitation that it came with counts no more: run `anywire agents admit {shown}`"

    def _note(self, shown: str, role: EndRole, end_id: str, host: str, reason: str) -> None:
        self.refused += 1
        end_id, host = printable(end_id, 80), printable(host, 80)
        before = self._waiting.pop((shown, end_id), None)
        if before is None or before.reason != reason:
            self._publish(shown, role, "refused", end_id, reason)
        self._waiting[shown, end_id] = WaitingEnd(shown, role, end_id, host, reason, time.time())
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._once.warn(shown or end_id, "the %s %s (host %s) is not let in: %s", role, end_id, host, reason)

    def _tell_changes(self, before: Mapping[str, AdmittedEnd]) -> None:
        """Publish what the file says otherwise than ``before``; another role or other ids are an admission anew."""
        before, now = _counting(before), _counting(self._admitted.ends)
        for print_, end in now.items():
            old = before.get(print_)
            if old is None or (old.role, old.fixed, old.fixed and old.ids) != (
                end.role,
                end.fixed,
                end.fixed and end.ids,
            ):
                self._publish(print_, end.role, "admitted", ", ".join(end.ids if end.fixed else ()))
        for print_, end in before.items():
            if print_ not in now:
                self._publish(print_, end.role, "revoked")

    def _publish(self, print_: str, role: EndRole, state: str, end_id: str = "", reason: str = "") -> None:
        for bus in self._buses.values():
            bus.publish(AdmissionChanged, fingerprint=print_, end=role, state=state, end_id=end_id, reason=reason)

    def _bind(self, print_: str, end_id: str) -> None:
        if not self._admitted.bind(print_, end_id):
            return
        self._publish(print_, self._admitted.ends[print_].role, "bound", end_id)
        self._unwritten[end_id] = print_
        self._write_soon()

    def _write_soon(self) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._unwritten or self._uninvited:
                ids, self._unwritten = self._unwritten, {}
                invited, self._uninvited = self._uninvited, {}
                await asyncio.to_thread(change_admitted, self._path, partial(_with_new, ids=ids, invited=invited))
        except ConfigError as error:
            log.error("who has joined, and with which id, cannot be written down: %s", error)
        finally:
            self._writing = None

    def _read(self) -> None:
        try:
            found = read_admitted(self._path)
        except ConfigError as error:
            log.error("what the file of admitted ends said before goes on to count: %s", error)
            for bus in self._buses.values():
                bus.publish(ConfigReloaded, what="admitted", error=str(error))
            return
        found = _with_new(found, self._unwritten, self._uninvited)
        if found.ends == self._admitted.ends:
            return  # this process has written it
        before, self._admitted = self._admitted.ends, found
        for bus in self._buses.values():
            bus.publish(ConfigReloaded, what="admitted")
        self._tell_changes(before)
        # Those that are let in now come again, or are told by their listener.
        for key, each in list(self._waiting.items()):
            if each.fingerprint and not self._admitted.refusal(each.fingerprint, each.role, each.id):
                del self._waiting[key]
        self.reconsider()


def _named_ids(end: AdmittedEnd) -> tuple[str, ...]:
    """The ids that were named when it was admitted; those of others come and go."""
    return end.ids if end.fixed else ()


def _counting(ends: Mapping[str, AdmittedEnd]) -> dict[str, AdmittedEnd]:
    return {print_: end for print_, end in ends.items() if not end.revoked}


def _with_new(admitted: Admitted, ids: Mapping[str, str], invited: Mapping[str, str]) -> Admitted:
    for print_, key_id in invited.items():
        admitted = admitted.with_invited(print_, key_id, time.time())
    for end_id, print_ in ids.items():
        admitted.bind(print_, end_id)
    return admitted
