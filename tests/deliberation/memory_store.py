"""A store in the memory of a test: as small as the contract allows, and taken from its owner when a test says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from anywire.errors import PluginFailed
from anywire_service_deliberation import deliberations, stores
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.store import Place, Store, StoreConfig, tenant_of


class Kept:
    """What several stores share. ``owner`` has it."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], Deliberation] = {}
        self.councils: dict[tuple[str, str], Council] = {}
        self.owner: MemoryStore | None = None


class MemoryConfig(StoreConfig):
    size: int = 3


class MemoryStore(Store):
    Config = MemoryConfig
    kept = Kept()
    """Of all stores that `make` makes."""

    def __init__(self, kept: Kept, max_kept: int = 100) -> None:
        self._kept, self._max_kept = kept, max_kept
        self._on_lost: Callable[[str], None] | None = None
        self._closed = False

    @classmethod
    def make(cls, config: Any, place: Place) -> MemoryStore:
        return cls(cls.kept, place.max_kept)

    async def open(self, on_lost: Callable[[str], None] | None = None) -> bool:
        self._on_lost = on_lost
        self._kept.owner = self._kept.owner or self
        return self._kept.owner is self

    def lose(self) -> None:
        """Another process takes it."""
        self._kept.owner = MemoryStore(self._kept)
        if self._on_lost is not None:
            self._on_lost("a test takes it")

    async def close(self) -> None:
        self._closed = True
        if self._kept.owner is self:
            self._kept.owner = None

    async def add(self, state: Deliberation) -> Deliberation:
        key = self._key(state)
        found = self._states.get(key)
        if found is not None and not 0 < found.expires <= state.submitted:
            return found
        self._states.pop(key, None)
        self._states[key] = _as_kept(state)
        return state

    async def keep(self, state: Deliberation) -> None:
        if self._key(state) in self._states:
            self._states[self._key(state)] = _as_kept(state)

    async def get(self, tenant: str | None, question_id: str) -> Deliberation | None:
        found = [
            state for (owner, known), state in self._states.items() if known == question_id and tenant in (None, owner)
        ]
        return found[-1] if found else None

    async def list(self, tenant: str | None, status: str, role: str, limit: int) -> Sequence[Deliberation]:
        found = [
            state
            for (owner, _), state in self._states.items()
            if tenant in (None, owner)
            and status in ("", state.status)
            and role in ("", *(member.role for member in state.question.members))
        ]
        newest = sorted(found, key=lambda state: -state.submitted)[:limit]
        return [_without_texts(state) for state in newest]

    async def unfinished(self) -> Sequence[Deliberation]:
        return [state for state in self._states.values() if not state.ended]

    async def purge(self, now: float) -> int:
        over = [state for state in self._states.values() if state.ended]
        over.sort(key=lambda state: state.ended, reverse=True)
        places: Counter[str] = Counter()
        ranked = []
        for state in over:
            places[tenant_of(state.question.caller)] += 1
            ranked.append((places[tenant_of(state.question.caller)], -state.ended, state))
        ranked.sort(key=lambda each: each[:2])
        too_many = [state for _, _, state in ranked[self._max_kept :]]
        gone = {self._key(state) for state in (*too_many, *(state for state in over if state.expires <= now))}
        for key in gone:
            del self._states[key]
        return len(gone)

    async def councils(self) -> Sequence[tuple[str, Council]]:
        self._check()
        return [(tenant, council) for (tenant, _), council in self._kept.councils.items()]

    async def put_council(self, tenant: str, council: Council) -> None:
        self._check()
        self._kept.councils[tenant, council.name] = council

    async def delete_council(self, tenant: str, name: str) -> bool:
        self._check()
        return self._kept.councils.pop((tenant, name), None) is not None

    @property
    def _states(self) -> dict[tuple[str, str], Deliberation]:
        self._check()
        return self._kept.states

    def _check(self) -> None:
        if self._closed or self._kept.owner is not self:
            raise PluginFailed("it is another process's")

    def _key(self, state: Deliberation) -> tuple[str, str]:
        return tenant_of(state.question.caller), state.question.id


def _as_kept(state: Deliberation) -> Deliberation:
    return msgspec.json.decode(msgspec.json.encode(state), type=Deliberation)


def _without_texts(state: Deliberation) -> Deliberation:
    def untold(answers: dict[str, Any]) -> dict[str, Any]:
        return {work: msgspec.structs.replace(answer, text="") for work, answer in answers.items()}

    return msgspec.structs.replace(state, answers=untold(state.answers), late=untold(state.late))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """What the stores called ``memory`` share in this test; a lost one is tried again soon."""
    monkeypatch.setattr(MemoryStore, "kept", Kept())
    monkeypatch.setitem(stores.BUILT_IN, "memory", MemoryStore)
    monkeypatch.setattr(deliberations, "LOCK_PAUSE", 0.01)
    return MemoryStore.kept
