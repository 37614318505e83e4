"""The key that a client of the client plane shows: as a signature, so that it is never sent."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec

from anywire.errors import ConfigError
from anywire.messages import HubInfo

if TYPE_CHECKING:
    from anywire.identities.identity_proof import Identity

VARIABLE = "ANYWIRE_API_KEY"
_JWT = re.compile(r"ey[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)


def client_identity(key: str | None) -> Identity | None:
    """The identity that follows from ``key``, or where that is None from the environment variable `VARIABLE`; None
    without either. Raises `ConfigError` for what is no key; the sentence repeats nothing of it."""
    source = "the key of a client" if key is not None else VARIABLE
    text = (os.environ.get(VARIABLE, "") if key is None else key).strip()
    if not text:
        return None
    from anywire.keys.key_text import read_key

    found = read_key(text)
    if found is None and _JWT.fullmatch(text):
        raise ConfigError(
            f"{source} is a token of an issuer, which counts over HTTP alone: ask over HTTP, or show a key that "
            "`anywire keys create` has made"
        )
    if found is None:
        raise ConfigError(f"{source} is none that `anywire keys create` has made: those begin with aw-")
    return found.identity


def with_proof(info: HubInfo, identity: Identity | None) -> HubInfo:
    """``info`` of a client, with the proof of its identity."""
    if identity is None:
        return info
    return msgspec.structs.replace(info, proof=identity.prove("client", "hub", info.hub_id, info.incarnation))
