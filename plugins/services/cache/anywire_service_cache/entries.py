"""Which answers are kept: pure book-keeping, bounded by number, bytes and age. The answers themselves are elsewhere."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

ENTRY_BYTES = 300
"""Bytes that an entry counts beside its answer and its vector."""
FUTURE_S = 60.0
"""Seconds that an entry may be ahead of the clock, which somebody has set back then."""


class Entry(msgspec.Struct, frozen=True):
    """``created`` is the Unix time at which the answer was given first. ``digest`` is that of the weights that gave it,
    empty where nobody knows them. ``group`` and ``vector`` are for comparing questions by their meaning, both empty
    otherwise."""

    key: bytes
    scope: str
    model: str
    digest: str
    created: float
    size: int
    group: bytes = b""
    vector: array[float] = array("f")

    @property
    def total(self) -> int:
        """Bytes that it takes in all."""
        return self.size + len(self.vector) * self.vector.itemsize + ENTRY_BYTES


class Entries:
    """At most ``max_entries`` with ``max_bytes``, each for ``max_age`` seconds. Where there is no room, what the scope
    that has the most has not used for the longest time goes. ``removed`` is called with each entry that goes by
    itself, and why: ``full``, ``expired``."""

    def __init__(
        self, max_entries: int, max_bytes: int, max_age: float, removed: Callable[[Entry, str], object]
    ) -> None:
        self._max_entries, self._max_bytes, self._max_age, self._removed = max_entries, max_bytes, max_age, removed
        self._by_key: OrderedDict[bytes, Entry] = OrderedDict()
        """The oldest first."""
        self._used: dict[str, OrderedDict[bytes, None]] = {}
        """By scope the keys, the longest unused first."""
        self._taken: dict[str, int] = {}
        """By scope the bytes."""
        self._groups: dict[bytes, OrderedDict[bytes, None]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: bytes, now: float) -> Entry | None:
        """An entry that is young enough, which counts as used now."""
        self.expire(now)
        entry = self._by_key.get(key)
        if entry is not None and not self._is_young(entry, now):  # the clock was set meanwhile
            self._go(key, "expired")
            return None
        if entry is not None:
            self._used[entry.scope].move_to_end(key)
        return entry

    def of_group(self, group: bytes, now: float, most: int) -> list[Entry]:
        """The newest of a group."""
        self.expire(now)
        keys = self._groups.get(group)
        if keys is None:
            return []
        newest = [self._by_key[key] for key, _ in zip(reversed(keys), range(most), strict=False)]
        return [each for each in newest if self._is_young(each, now)]

    def fits(self, size: int) -> bool:
        """Whether an answer of so many bytes could be kept at all."""
        return size + ENTRY_BYTES <= self._max_bytes

    def add(self, entry: Entry, now: float) -> None:
        """Keep one, in place of one with its key. It must fit (`fits`)."""
        self.remove(entry.key)
        self.expire(now)
        self._by_key[entry.key] = entry
        self._used.setdefault(entry.scope, OrderedDict())[entry.key] = None
        self._taken[entry.scope] = self._taken.get(entry.scope, 0) + entry.total
        self.bytes += entry.total
        if entry.group:
            self._groups.setdefault(entry.group, OrderedDict())[entry.key] = None
        while len(self._by_key) > self._max_entries or self.bytes > self._max_bytes:
            scope = max(self._taken, key=self._taken.__getitem__)
            if self.bytes <= self._max_bytes:
                scope = max(self._used, key=lambda each: len(self._used[each]))
            longest_unused = next(iter(self._used[scope]))
            if longest_unused == entry.key and len(self._by_key) > 1:
                # Its own scope has it alone: another one gives way.
                longest_unused = next(key for each in self._by_key.values() if (key := each.key) != entry.key)
            self._go(longest_unused, "full")

    def remove(self, key: bytes) -> Entry | None:
        """Keep one no more; None when it is not kept."""
        entry = self._by_key.pop(key, None)
        if entry is None:
            return None
        used = self._used[entry.scope]
        del used[key]
        self.bytes -= entry.total
        if used:
            self._taken[entry.scope] -= entry.total
        else:
            del self._used[entry.scope], self._taken[entry.scope]
        if entry.group:
            group = self._groups[entry.group]
            del group[key]
            if not group:
                del self._groups[entry.group]
        return entry

    def expire(self, now: float) -> None:
        """Let go what is too old."""
        while self._by_key:
            oldest = next(iter(self._by_key.values()))
            if self._is_young(oldest, now):
                return
            self._go(oldest.key, "expired")

    def matching(self, scope: str | None, model: str) -> Iterator[Entry]:
        """Those of a scope, None for all, and of a model, empty for all."""
        for entry in list(self._by_key.values()):
            if (scope is None or entry.scope == scope) and (not model or entry.model == model):
                yield entry

    def _is_young(self, entry: Entry, now: float) -> bool:
        return -FUTURE_S <= now - entry.created < self._max_age

    def _go(self, key: bytes, why: str) -> None:
        entry = self.remove(key)
        if entry is not None:
            self._removed(entry, why)
