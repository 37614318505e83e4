"""A model's status as JSON, as commands, routes and command line have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from anywire_engine_models.host.status import ModelStatus

_DEFAULTS = {
    field.name: field.default
    for field in msgspec.structs.fields(ModelStatus)
    if isinstance(field.default, str | int | float | bool)
}


def whole_status(told: Mapping[str, Any]) -> dict[str, Any]:
    """``told`` with all members of a status: on the wire those that say nothing are left out."""
    return {"id": told["model"], "object": "model", **_DEFAULTS, **told}


IMPORTED = ("added", "present", "skipped", "notes")
"""What `models.import` tells in lists."""


def merged(pieces: Iterable[Mapping[str, Any]], *lists: str) -> dict[str, Any]:
    """What was told in several pieces, because one result is bounded: the ``lists`` go on from piece to piece, of
    every other member the newest counts."""
    whole: dict[str, Any] = {name: [] for name in lists}
    for piece in pieces:
        for name, value in piece.items():
            if name in lists:
                whole[name] += value
            else:
                whole[name] = value
    return whole
