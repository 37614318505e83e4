"""Settings of a host."""

from __future__ import annotations

import msgspec


class HostSettings(msgspec.Struct, frozen=True):
    """``memory_budget`` is in bytes, for all models with a process together; 0: no bound. ``turn`` are the seconds that
    a model which was loaded for waiting requests stays, while others wait for its memory and it still has requests:
    the bound on swaps. ``max_waiting`` are requests that may wait for all models together. ``log_lines`` are kept of
    each model."""

    memory_budget: int = 0
    turn: float = 2.0
    max_waiting: int = 1024
    log_lines: int = 1000
