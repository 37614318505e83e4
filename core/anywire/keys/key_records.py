"""What an orchestrator knows of a key, and the JSON file in which that is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from anywire.caller import NO_LIMITS, Caller, Limits, Role
from anywire.errors import ConfigError
from anywire.files.private_files import MAX_BYTES, change_private, read_private
from anywire.keys.key_text import ID_CHARS, KeyText
from anywire.submission import MAX_NAME_CHARS

FORMAT = 1
MAX_KEYS = 10_000
"""Keys in a file: reading so many holds the event loop up for some 50 ms."""

_Id = Annotated[str, msgspec.Meta(pattern=rf"^[a-z2-7]{{{ID_CHARS}}}$")]
_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^(?:[0-9a-f]{64})?$")]
_Time = Annotated[float, msgspec.Meta(ge=0)]


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key. Times are Unix times in seconds, ``expires`` and ``revoked`` 0 for never.

    ``digest`` is the SHA-256 of the secret, ``public_key`` the Ed25519 public key that follows from the secret, both in
    hexadecimal. A key that is shown by a client certificate has the SHA-256 fingerprint of that in their place. Whoever
    has a key that ``invites`` may bring in agents, too.
    """

    id: _Id
    created: _Time
    label: _Name = ""
    tenant: _Name = ""
    role: Role = "use"
    limits: Limits = NO_LIMITS
    expires: _Time = 0.0
    revoked: _Time = 0.0
    digest: _Sha256 = ""
    public_key: _Sha256 = ""
    certificate: _Sha256 = ""
    invites: bool = False

    @property
    def caller(self) -> Caller:
        """Whoever shows this key. Without a tenant of its own a key is one by itself."""
        limits = self.limits if self.limits != NO_LIMITS else NO_LIMITS  # which admission need not look at
        return Caller(self.id, self.tenant or self.id, self.role, limits)

    def state(self, now: float) -> str:
        """``active``, ``revoked`` or ``expired``."""
        if self.revoked:
            return "revoked"
        return "expired" if 0 < self.expires <= now else "active"


def record_of(
    key: KeyText | None,
    key_id: str = "",
    *,
    label: str = "",
    tenant: str = "",
    role: Role = "use",
    limits: Limits = NO_LIMITS,
    expires: float = 0.0,
    certificate: str = "",
    invites: bool = False,
) -> KeyRecord:
    """The record of a new key: ``key``, or the one called ``key_id`` that a client certificate stands for."""
    digest, public_key = (key.digest, key.identity.public.hex()) if key is not None else ("", "")
    return KeyRecord(
        key.id if key is not None else key_id,
        float(int(time.time())),
        label,
        tenant,
        role,
        limits,
        expires,
        0.0,
        digest,
        public_key,
        certificate,
        invites,
    )


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    keys: list[KeyRecord]


_decoder = msgspec.json.Decoder(_File)


def read_keys(path: Path) -> dict[str, KeyRecord]:
    """The keys in the file ``path``, by id. Raises `ConfigError` when there is none, when others can read it, or when
    it is damaged; the message says what to do."""
    try:
        return _decoded(read_private(path), path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"the file {path} with the keys of clients does not exist: run `anywire keys create --file {path}`"
        ) from error


def change_keys(path: Path, change: Callable[[dict[str, KeyRecord]], Iterable[KeyRecord]]) -> None:
    """Replace the keys in the file ``path``, made if need be, by what ``change`` makes of them. Changes of several
    processes come one after the other. Raises `ConfigError`, and what ``change`` raises; nothing is changed then."""

    def changed(data: bytes) -> bytes:
        keys = list(change(_decoded(data, path) if data else {}))
        if len(keys) > MAX_KEYS:
            raise ConfigError(f"{path} has {MAX_KEYS} keys, and no more are possible: remove revoked ones from it")
        written = msgspec.json.format(msgspec.json.encode(_File(FORMAT, keys)), indent=1) + b"\n"
        if len(written) > MAX_BYTES:
            raise ConfigError(f"{path} would be longer than {MAX_BYTES} bytes: use shorter labels and fewer models")
        return written

    change_private(path, changed)


def add_key(path: Path, record: KeyRecord) -> None:
    """Add a key. Raises `ConfigError` when the certificate that it stands for has one already."""

    def add(keys: dict[str, KeyRecord]) -> list[KeyRecord]:
        for each in keys.values():
            if record.certificate and each.certificate == record.certificate and not each.revoked:
                raise ConfigError(f"the certificate has the key {each.id} already: revoke that one first")
        return [*keys.values(), record]

    change_keys(path, add)


def revoke_keys(path: Path, ids: Iterable[str]) -> list[KeyRecord]:
    """Revoke the keys of these ids, and return their records. Raises `ConfigError` when one does not exist; none is
    revoked then. One that is revoked already stays as it is."""
    wanted, now = dict.fromkeys(ids), float(int(time.time()))
    found: list[KeyRecord] = []

    def revoke(keys: dict[str, KeyRecord]) -> list[KeyRecord]:
        found.clear()
        for each in wanted:
            if each not in keys:
                raise ConfigError(f"{path} has no key {each}: `anywire keys list --file {path}` shows its keys")
            if not keys[each].revoked:
                keys[each] = msgspec.structs.replace(keys[each], revoked=now)
            found.append(keys[each])
        return list(keys.values())

    read_keys(path)  # a file that is missing is a mistake, and not made
    change_keys(path, revoke)
    return found


def by_certificate(keys: Mapping[str, KeyRecord]) -> dict[str, KeyRecord]:
    """The keys that client certificates stand for, by fingerprint; of several the last one."""
    return {each.certificate: each for each in keys.values() if each.certificate}


def _decoded(data: bytes, path: Path) -> dict[str, KeyRecord]:
    try:
        found = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no file of keys: {_without_content(error)}; restore it from a copy") from error
    if found.format != FORMAT:
        raise ConfigError(f"{path} has the format {found.format}, and this version of anywire reads {FORMAT}")
    if len(found.keys) > MAX_KEYS:
        raise ConfigError(f"{path} has over {MAX_KEYS} keys: remove revoked ones from it")
    keys = {each.id: each for each in found.keys}
    if len(keys) != len(found.keys):
        raise ConfigError(f"{path} has two keys with one id: remove one of them")
    if bare := next((each.id for each in found.keys if not (each.digest or each.certificate)), ""):
        raise ConfigError(f"{path}: the key {bare} has neither a digest nor a certificate: remove it")
    return keys


def _without_content(error: Exception) -> str:
    """What is wrong, without what stands in the file: that may be a secret that was put there by mistake."""
    if isinstance(error, msgspec.ValidationError):
        return str(error).partition(" - at ")[2].strip("`") + " is wrong" if " - at " in str(error) else "a wrong value"
    return "no JSON"
