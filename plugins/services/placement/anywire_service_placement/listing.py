"""What an agent says of its models, read from the results of its command ``models.list``.

An agent is a stranger: what it says is bounded, and what is no listing is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from anywire_service_placement.places import Replica, State

MAX_MODELS = 1000
"""Models of one agent that are looked at."""
MAX_RESULTS = 1000
"""Results of one listing that are read."""

_STATES = frozenset(get_args(State))


class _Status(msgspec.Struct):
    model: str
    state: str = "stopped"
    memory_bytes: int = 0
    serving: int = 0
    waiting: int = 0
    pinned: bool = False
    group: str = ""


class Memory(msgspec.Struct, frozen=True):
    """The memory that an agent may give its models, and what changing them has cost it."""

    budget_bytes: int = 0
    used_bytes: int = 0
    loads: int = 0
    swaps: int = 0
    swap_seconds: float = 0.0


class _Result(msgspec.Struct):
    models: list[_Status] = []
    memory: Memory | None = None


class Listing(msgspec.Struct, frozen=True):
    """``other_bytes`` of the budget are used by what is not among ``models``."""

    models: Mapping[str, Replica] = {}
    memory: Memory = Memory()
    other_bytes: int = 0


class ListingReader:
    """Takes the results of one listing in."""

    def __init__(self) -> None:
        self._models: dict[str, Replica] = {}
        self._memory = Memory()
        self._results = 0

    def take(self, result: Any) -> bool:
        """False once no more is to be read. Raises ValueError for what is no listing."""
        self._results += 1
        try:
            found = msgspec.convert(result, _Result)
        except msgspec.ValidationError as error:
            raise ValueError(f"it gave what is no list of models: {error}") from error
        if found.memory is not None:
            self._memory = found.memory
        for each in found.models:
            if len(self._models) < MAX_MODELS:
                self._models[each.model] = _replica(each)
        return len(self._models) < MAX_MODELS and self._results < MAX_RESULTS

    def listing(self) -> Listing:
        """Of all that was taken in."""
        known = sum(each.memory_bytes for each in self._models.values() if each.has_memory)
        memory = msgspec.structs.replace(
            self._memory, budget_bytes=max(0, self._memory.budget_bytes), used_bytes=max(0, self._memory.used_bytes)
        )
        return Listing(self._models, memory, max(0, memory.used_bytes - known))


def _replica(status: _Status) -> Replica:
    # A state of a later version is none that serves.
    state: Any = status.state if status.state in _STATES else "crashed"
    busy = status.serving > 0 or status.waiting > 0
    return Replica(state, max(0, status.memory_bytes), busy, status.pinned, status.group)
