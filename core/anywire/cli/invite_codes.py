"""Invite codes: where a fleet is and what opens it, in one word that can be copied."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import msgspec

from anywire.errors import ConfigError

_MARK = "aw2-"
_BEFORE = "aw1-"
"""Of codes without keys of clients and identities."""
_CHECK = 4
_MOST = 64 * 1024
"""Bytes of the longest invitation, unpacked."""


class Invitation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a code says: whoever has it can join and ask. Its repr shows no secret."""

    fleet: str
    transports: dict[str, dict[str, Any]]
    """The options of each transport, the preferred first."""
    url: str = ""
    """Where its gateway is; empty when it has none."""
    authorities: str = ""
    """Of which its certificate comes (PEM); empty for one known to all, or none."""
    name: str = ""
    """The name in its certificate, where that is not the one in the URL."""
    key: str = ""
    """The key by which clients come in, and which vouches for agents; empty where everybody is let in."""
    orchestrator: str = ""
    """The fingerprint of the orchestrator's identity; empty where the ends know each other by a key that they share,
    which is among the options of the transports then."""

    def __repr__(self) -> str:
        return f"Invitation({self.fleet!r}, {self.url!r})"


def encode(invitation: Invitation) -> str:
    data = zlib.compress(msgspec.json.encode(invitation), 9)
    return _MARK + base64.urlsafe_b64encode(_check(data) + data).decode().rstrip("=")


def decode(code: str) -> Invitation:
    """Raises `ConfigError`, which does not repeat the code, for anything that `encode` has not made."""
    code = code.strip()
    if code.startswith(_BEFORE):
        raise ConfigError(
            "this invite code is of an older Anywire, whose fleets had no keys of clients: print a new one with "
            "`anywire invite` on the orchestrator's machine"
        )
    if not code.startswith(_MARK):
        raise ConfigError(f"this is no invite code: one begins with {_MARK} and is printed by `anywire invite`")
    text = code.removeprefix(_MARK)
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        check, data = packed[:_CHECK], packed[_CHECK:]
        if check != _check(data):
            raise ValueError
        unpacking = zlib.decompressobj()
        return msgspec.json.decode(unpacking.decompress(data, _MOST), type=Invitation)
    except (ValueError, RecursionError, zlib.error, msgspec.MsgspecError):
        raise ConfigError("this invite code is damaged: copy the whole line that `anywire invite` prints") from None


def _check(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_CHECK]
