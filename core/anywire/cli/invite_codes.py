"""Invite codes: where a fleet is and what opens it, in one word that can be copied."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import msgspec

from anywire.errors import ConfigError

_MARK = "aw1-"
_CHECK = 4
_MOST = 64 * 1024
"""Bytes of the longest invitation, unpacked."""


class Invitation(msgspec.Struct, frozen=True):
    """What a code says. It holds the keys of the fleet: whoever has it can join and ask."""

    fleet: str
    transports: dict[str, dict[str, Any]]
    """The options of each transport, the preferred first."""
    url: str = ""
    """Where its gateway is; empty when it has none."""


def encode(invitation: Invitation) -> str:
    data = zlib.compress(msgspec.json.encode(invitation), 9)
    return _MARK + base64.urlsafe_b64encode(_check(data) + data).decode().rstrip("=")


def decode(code: str) -> Invitation:
    """Raises `ConfigError`, which does not repeat the code, for anything that `encode` has not made."""
    code = code.strip()
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
