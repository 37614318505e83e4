"""The file of the agents and orchestrators that are let in, by the fingerprints of their keys. No clock, no tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, get_args

import msgspec

from anywire.errors import ConfigError
from anywire.files.private_files import change_private, read_private
from anywire.identities.identity_proof import FINGERPRINT, fingerprint, from_text

EndRole = Literal["agent", "orchestrator"]
"""``agent``: may join as an agent. ``orchestrator``: may also send tasks to agents and answer clients."""
END_ROLES: tuple[EndRole, ...] = get_args(EndRole)

MAX_ADMITTED = 100_000
MAX_INVITED = 1000
"""Ends that one invitation lets in."""
MAX_IDS = 64
"""Ids that one key has: of those that were not named when it was admitted, the ones that it has used last."""


class AdmittedEnd(msgspec.Struct, frozen=True):
    """One key that is let in. ``ids`` are bound to it: no other key may use them. ``fixed`` is whether they were named
    when it was admitted, and it may use no other. ``admitted`` is the Unix time of that, in seconds. ``invited`` is the
    id of the client key that has let it in. One that is ``revoked`` stays in the file, so that it is told from a
    stranger, and no invitation that it has lets it in again."""

    fingerprint: str
    role: EndRole = "agent"
    ids: tuple[str, ...] = ()
    fixed: bool = False
    admitted: float = 0.0
    invited: str = ""
    revoked: bool = False


class _File(msgspec.Struct, frozen=True):
    ends: list[AdmittedEnd]


class Admitted:
    """What such a file says. Raises `ConfigError` for more than `MAX_ADMITTED` ends, or one id of two keys."""

    def __init__(self, ends: Iterable[AdmittedEnd] = ()) -> None:
        self.ends = {end.fingerprint: end for end in ends}
        self._owners = {end_id: end.fingerprint for end in self.ends.values() for end_id in end.ids}
        if len(self.ends) > MAX_ADMITTED:
            raise ConfigError(f"more than {MAX_ADMITTED} ends are admitted")
        if len(self._owners) != sum(len(end.ids) for end in self.ends.values()):
            raise ConfigError("one id is bound to two keys")

    def refusal(self, print_: str, role: EndRole, end_id: str) -> str:
        """Why the key with that fingerprint may not be ``end_id`` as ``role``, as part of a sentence; empty when it
        may."""
        found = self.ends.get(print_)
        more = " --role orchestrator" if role == "orchestrator" else ""
        if found is None:
            return f"its key is not admitted: run `anywire agents admit {print_}{more}`"
        if found.revoked:
            return f"its key was revoked: to let it in again run `anywire agents admit {print_}{more}`"
        if role == "orchestrator" and found.role != role:
            return f"its key is admitted as an agent alone: run `anywire agents admit {print_}{more}`"
        if taken := self.taken(print_, end_id):
            return taken
        if found.fixed and end_id not in found.ids:
            return f"its key {print_} is admitted for other ids alone"
        return ""

    def taken(self, print_: str, end_id: str) -> str:
        """Why that id is not for this key, as part of a sentence; empty when it is nobody's or its own."""
        return f"its id is bound to another key than {print_}" if self._owners.get(end_id, print_) != print_ else ""

    def bind(self, print_: str, end_id: str) -> bool:
        """Give ``end_id`` to that key where it is nobody's and the key may use it; whether anything has changed."""
        found = self.ends.get(print_)
        if found is None or found.fixed or found.revoked or end_id in self._owners:
            return False
        for old in found.ids[: max(0, len(found.ids) + 1 - MAX_IDS)]:
            del self._owners[old]
        self.ends[print_] = msgspec.structs.replace(found, ids=(*found.ids, end_id)[-MAX_IDS:])
        self._owners[end_id] = print_
        return True

    def with_end(self, end: AdmittedEnd) -> Admitted:
        """The same with this end, in place of an older record of its key. Raises `ConfigError`."""
        return Admitted((self.ends | {end.fingerprint: end}).values())

    def with_invited(self, print_: str, key_id: str, now: float) -> Admitted:
        """The same with the end of that key as one whom the client key ``key_id`` has invited. Unchanged where it is
        admitted without an invitation, or was revoked, and where the invitation has let in `MAX_INVITED`."""
        found = self.ends.get(print_)
        taken = sum(end.invited == key_id for end in self.ends.values())
        if found is not None and (not found.invited or found.revoked or found.invited == key_id):
            return self
        if taken >= MAX_INVITED or (found is None and len(self.ends) >= MAX_ADMITTED):
            return self
        ids = found.ids if found is not None else ()
        return self.with_end(AdmittedEnd(print_, ids=ids, admitted=now, invited=key_id))

    def without(self, print_: str) -> Admitted:
        """The same with that end, if it is there, as one that is revoked."""
        found = self.ends.get(print_)
        if found is None:
            return self
        return self.with_end(msgspec.structs.replace(found, ids=(), fixed=False, revoked=True))


def read_admitted(path: Path) -> Admitted:
    """What the file ``path`` says; nobody where there is none. Raises `ConfigError`, as `read_private` does and when it
    is damaged."""
    try:
        return _decoded(read_private(path), path)
    except FileNotFoundError:
        return Admitted()


def change_admitted(path: Path, change: Callable[[Admitted], Admitted]) -> None:
    """Replace what the file says by ``change`` of it; see `anywire.files.private_files.change_private`."""
    change_private(path, lambda data: _encoded(change(_decoded(data, path))))


def read_fingerprint(text: str) -> str:
    """The fingerprint that ``text``, itself one or a public key in base64url, stands for. Raises `ConfigError`."""
    if FINGERPRINT.fullmatch(text):
        return text
    public = from_text(text)
    if public is None or len(public) != 32:
        raise ConfigError(f"{text[:80]!r} is neither a fingerprint (SHA256:…) nor a public key")
    return fingerprint(public)


def _decoded(data: bytes, path: Path) -> Admitted:
    if not data:
        return Admitted()
    try:
        ends = msgspec.json.decode(data, type=_File).ends
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
    for end in ends:
        if not FINGERPRINT.fullmatch(end.fingerprint) or not all(each and each.isprintable() for each in end.ids):
            raise ConfigError(f"{path} is damaged: one of its ends has no fingerprint, or an id that is none")
    try:
        return Admitted(ends)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _encoded(admitted: Admitted) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_File(list(admitted.ends.values()))), indent=2) + b"\n"
