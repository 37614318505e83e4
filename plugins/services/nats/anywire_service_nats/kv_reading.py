"""Reading deliberations from the bucket, while others of them are written and removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from anywire_service_deliberation.record import Deliberation
from anywire_service_nats import kv_form
from anywire_service_nats.kv_form import INDEX, PARTS, UNREADABLE, Head
from anywire_service_nats.kv_index import Entry
from anywire_service_nats.kv_owned import OwnedBucket

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Deliberations that are read, or removed, at once."""
STALE_TRIES, STALE_PAUSE = 10, 0.1
"""How often a piece is looked for that another server of the cluster may have a moment later, after so many seconds."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Missing(KeyError):
    """A piece, or the newest head, is not there."""


class Reader:
    def __init__(self, bucket: OwnedBucket) -> None:
        self._bucket = bucket

    async def read_all(self, entries: Sequence[Entry], *, texts: bool = True) -> Sequence[Deliberation]:
        """Those that are there and can be read, in their order."""
        read = [await all_of([self.read(entry, texts=texts) for entry in some]) for some in groups(entries)]
        return [state for some in read for state in some if state is not None]

    async def read(self, entry: Entry, *, texts: bool = True) -> Deliberation | None:
        """None for one that is removed meanwhile, and for one that is damaged, which is logged."""
        tries = 0
        while not entry.removed:
            revision = entry.revision
            try:
                head = entry.head or await self.head(entry)
                keys = kv_form.needed(head, texts=texts)
                values = await all_of([self._piece(f"{PARTS}.{entry.number}.{key}") for key in keys])
                return kv_form.whole(head, dict(zip(keys, values, strict=True)).__getitem__, texts=texts)
            except _Missing as error:
                if entry.revision != revision or entry.removed:  # it was written anew meanwhile
                    continue
                tries += 1
                if tries > STALE_TRIES:
                    damaged(entry, error)
                    return None
                await asyncio.sleep(STALE_PAUSE)
            except UNREADABLE as error:
                damaged(entry, error)
                return None
        return None

    async def head(self, entry: Entry) -> Head:
        """The newest head of one that has ended. Raises one of `UNREADABLE`."""
        found = await self._bucket.get(f"{INDEX}.{entry.number}")
        if found is None or found.revision < entry.revision:
            raise _Missing(entry.number)
        return kv_form.read_head(found.data)

    async def _piece(self, key: str) -> bytes:
        found = await self._bucket.get(key)
        if found is None:
            raise _Missing(key)
        return found.data


def damaged(entry: Entry, error: Exception) -> None:
    log.error("the deliberation %s cannot be read: what is kept of it is damaged: %r", entry.summary.id, error)


def groups(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[at : at + AT_ONCE] for at in range(0, len(items), AT_ONCE)]


async def all_of(calls: Sequence[Awaitable[Result]]) -> list[Result]:
    """What all of them return, when all have ended. Raises the first failure then."""
    found: list[Result] = []
    for each in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(each, BaseException):
            raise each
        found.append(each)
    return found
