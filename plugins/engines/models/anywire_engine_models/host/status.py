"""What is said of a model: its state, and what changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from anywire_engine_models.host.server import Exit

ModelState = Literal["stopped", "starting", "running", "stopping", "crashed"]

TRANSITIONS: frozenset[tuple[ModelState, ModelState]] = frozenset(
    {
        ("stopped", "starting"),
        ("crashed", "starting"),
        ("crashed", "stopped"),
        ("starting", "running"),
        ("starting", "crashed"),
        ("starting", "stopping"),
        ("running", "crashed"),
        ("running", "stopping"),
        ("stopping", "stopped"),
    }
)
"""From a state to the next; there are no others."""


class ModelStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model now.

    ``reason`` says why it is in its state (``asked to``, ``its first task``, ``idle for 300 s``, ``makes room for
    a:b:c``, ``killed by SIGKILL``). ``exit`` is the newest end that was not asked for, kept until the next start.
    ``pid`` is 0 while there is no process, ``address`` empty until it is ready. ``device`` is ``cpu`` or ``gpu:0``
    (empty without a process), ``device_reason`` the numbers of that decision. ``progress`` is 0.0 to 1.0 while it
    loads, where that is known. ``serving`` are its requests under way, ``waiting`` those that wait for it.
    ``memory_bytes`` is what it is counted with against the budget. ``starts`` counts processes, ``evictions`` how often
    it made room for another one, ``load_seconds`` is how long its newest start took. ``since`` is seconds since 1970.
    """

    model: str
    state: ModelState = "stopped"
    reason: str = ""
    exit: Exit | None = None
    pid: int = 0
    address: str = ""
    device: str = ""
    device_reason: str = ""
    progress: float = 0.0
    serving: int = 0
    waiting: int = 0
    pinned: bool = False
    on_demand: bool = False
    group: str = ""
    memory_bytes: int = 0
    starts: int = 0
    evictions: int = 0
    load_seconds: float = 0.0
    since: float = 0.0


class ModelChanged(msgspec.Struct, frozen=True):
    """A transition, or news within a state (``previous`` is the same then: progress, pinned)."""

    status: ModelStatus
    previous: ModelState


class MemoryUse(msgspec.Struct, frozen=True):
    """``used_bytes`` of ``budget_bytes`` are counted with models that have a process; ``loads`` are starts since this
    host began, ``swaps`` those for which another model had to be stopped."""

    budget_bytes: int
    used_bytes: int
    loads: int = 0
    swaps: int = 0
    swap_seconds: float = 0.0


Listener = Callable[[ModelChanged], None]
"""Called on the event loop after the state has changed, in order. What it raises is logged and harms nobody."""
