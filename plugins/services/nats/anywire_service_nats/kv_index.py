"""What the owner of a bucket knows of each deliberation in it, in memory: there are at most as many as are kept."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count

from anywire_service_nats.kv_form import Head, Summary

Key = tuple[str, str]
"""A tenant, and the id that it has given."""


class Entry:
    """One deliberation. ``number`` names it in the bucket and grows with each; ``revision`` is that of its head.
    ``head`` is there while it has not ended. ``kept`` is False while nobody knows whether it was added."""

    def __init__(self, number: str, summary: Summary, revision: int, head: Head | None, *, kept: bool) -> None:
        self.number, self.kept = number, kept
        self.summary, self.revision, self.head = summary, revision, head
        self.serial = head.serial if head is not None else 0
        """The first serial that no part has had."""
        self.removed = False

    @property
    def key(self) -> Key:
        return self.summary.tenant, self.summary.id

    def written(self, head: Head, revision: int) -> None:
        self.summary, self.revision, self.kept = _summary(head), revision, True
        self.head = head if not head.ended else None


class Index:
    def __init__(self) -> None:
        self._by_key: dict[Key, Entry] = {}
        self._by_id: dict[str, dict[Key, Entry]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def put(self, entry: Entry) -> None:
        self._by_key[entry.key] = entry
        self._by_id.setdefault(entry.summary.id, {})[entry.key] = entry

    def drop(self, entry: Entry) -> None:
        entry.removed = True
        if self._by_key.get(entry.key) is entry:
            del self._by_key[entry.key]
            same = self._by_id[entry.summary.id]
            del same[entry.key]
            if not same:
                del self._by_id[entry.summary.id]

    def at(self, key: Key) -> Entry | None:
        return self._by_key.get(key)

    def find(self, tenant: str | None, question_id: str) -> Entry | None:
        """The newest with that id where ``tenant`` is None."""
        same = self._by_id.get(question_id, {})
        kept = [entry for entry in same.values() if entry.kept and tenant in (None, entry.summary.tenant)]
        return max(kept, key=lambda entry: entry.number, default=None)

    def listed(self, tenant: str | None, status: str, role: str, limit: int) -> list[Entry]:
        """Those submitted last first."""
        found = (
            entry
            for entry in self._kept()
            if tenant in (None, entry.summary.tenant)
            and status in ("", entry.summary.status)
            and (not role or role in entry.summary.roles)
        )
        return heapq.nlargest(limit, found, key=lambda entry: (entry.summary.submitted, entry.number))

    def unfinished(self) -> list[Entry]:
        """In the order in which they were added."""
        return sorted((each for each in self._kept() if not each.summary.ended), key=lambda entry: entry.number)

    def expired(self, now: float, most: int) -> list[Entry]:
        """Those that have expired, and of more than ``most`` that have ended the oldest of the tenants that have the
        most."""
        over = [entry for entry in self._kept() if entry.summary.ended]
        gone = {entry.number: entry for entry in over if entry.summary.expires <= now}
        if len(over) > most:
            over.sort(key=lambda entry: (entry.summary.ended, entry.number), reverse=True)
            places: dict[str, Iterator[int]] = {}
            ranked = [(next(places.setdefault(entry.summary.tenant, count())), entry) for entry in over]
            ranked.sort(key=lambda each: (each[0], -each[1].summary.ended))
            gone |= {entry.number: entry for _, entry in ranked[most:]}
        return list(gone.values())

    def doubtful(self) -> list[Entry]:
        return [entry for entry in self._by_key.values() if not entry.kept]

    def _kept(self) -> Iterator[Entry]:
        return (entry for entry in self._by_key.values() if entry.kept)


def _summary(head: Head) -> Summary:
    """The head without all that is not known of each."""
    return Summary(**{name: getattr(head, name) for name in Summary.__struct_fields__})
