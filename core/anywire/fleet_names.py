"""Names of fleets that nobody chose."""

from __future__ import annotations

import secrets

_PREFIX = "private-"


def private_fleet() -> str:
    """A name that no other fleet has."""
    return f"{_PREFIX}{secrets.token_hex(6)}"


def is_private(fleet: str) -> bool:
    """Whether it is one of `private_fleet`, which lasts as long as its processes do."""
    return fleet.startswith(_PREFIX)
