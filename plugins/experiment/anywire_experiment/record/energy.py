"""What a cell says of the energy that the machine took."""

from __future__ import annotations

import msgspec


class CellEnergy(msgspec.Struct, frozen=True, omit_defaults=True):
    """``sources`` were counted, each the energy of a part of the whole machine, whatever ran on it. ``idle_watts`` is
    their power before the run began. ``missing`` says what cannot be counted here, and why."""

    sources: list[str] = []
    idle_watts: dict[str, float] = {}
    missing: list[str] = []
