"""A model as its host knows it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

RestartPolicy = Literal["never", "on-failure"]


class HostedModel(msgspec.Struct, frozen=True):
    """One model that a host may start.

    ``name`` is its full identifier. ``memory_bytes`` is what it needs, against the budget. ``slots`` are its requests
    at once; further ones wait. ``autostart`` starts it when the host begins. ``on_demand`` starts it for a request, and
    it is stopped after ``idle_ttl`` seconds without one (0: never). ``pinned``: it makes room for nobody. Models of one
    ``group`` may be loaded together with each other and not with those of another group; an empty one is with all.
    ``restart`` after an end that nobody asked for, with back-off, at most ``max_restarts`` in a row.
    ``start_timeout`` and ``stop_grace`` are in seconds. ``device`` is where it is wanted: ``auto``, ``cpu`` or
    ``gpu:N``. ``launch`` is for the launcher alone (`ServerCommand` for processes).
    """

    name: str
    memory_bytes: int = 0
    slots: int = 1
    autostart: bool = False
    on_demand: bool = False
    idle_ttl: float = 0.0
    pinned: bool = False
    group: str = ""
    restart: RestartPolicy = "on-failure"
    max_restarts: int = 5
    start_timeout: float = 120.0
    stop_grace: float = 5.0
    device: str = "auto"
    launch: Any = None
