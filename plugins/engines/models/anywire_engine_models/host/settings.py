"""Settings of a host."""

from __future__ import annotations

import msgspec


class HostSettings(msgspec.Struct, frozen=True):
    """``memory_budget`` is in bytes, for all models with a process together; 0: no bound. ``turn`` are the seconds for
    which a model that took another one's memory keeps it, also while it is idle for a moment. While it still has
    requests it keeps it for as long as its load took, where that is longer; so does any model that was loaded for
    waiting requests. ``turn`` is the bound on swaps: a place in memory changes hands at most once in ``turn`` and the
    time of a load. ``max_waiting`` are callers (requests and starts) that may wait for all models together.
    ``log_lines`` are kept of each model."""

    memory_budget: int = 0
    turn: float = 2.0
    max_waiting: int = 1024
    log_lines: int = 1000


class MemoryBudget(msgspec.Struct, frozen=True):
    """Bytes that models with a process may take together: ``now``, and at ``most`` once others have given back what is
    not theirs. A model that needs more than ``most`` is refused, one that needs more than ``now`` waits. Both are 0
    without a bound. ``why`` says in a few words who else takes part, empty when nobody does."""

    now: int = 0
    most: int = 0
    why: str = ""
