"""The database of counted answers, used from the event loop: a thread of its own waits for the disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from anywire.collected_answers import CollectedTask
from anywire.files.database_thread import DatabaseThread, DiskFaults
from anywire_service_nats.collector.database import FORM, Database, Outcome
from anywire_service_nats.collector.heard import Heard


class Store:
    """Each call is that of `anywire_service_nats.collector.database.Database`, in the order in which they are made. All
    raise `PluginFailed` when the disk does not do what it should, which is logged when it begins and when it is
    over."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = DatabaseThread("collected-answers", DiskFaults(FORM.kept))
        self._closed = False

    async def open(self) -> bool:
        return await self._thread.do(self._database.open)

    async def count(self, heard: Sequence[Heard], seconds: float) -> Sequence[Outcome]:
        return await self._thread.do(partial(self._database.count, heard, seconds))

    async def end_late(self, now: float) -> None:
        await self._thread.do(partial(self._database.end_late, now))

    async def next_deadline(self) -> float:
        return await self._thread.do(self._database.next_deadline)

    async def untold(self, most: int) -> Sequence[CollectedTask]:
        return await self._thread.do(partial(self._database.untold, most))

    async def told(self, task_ids: Sequence[str]) -> None:
        await self._thread.do(partial(self._database.told, task_ids))

    async def get(self, task_id: str) -> CollectedTask | None:
        return await self._thread.do(partial(self._database.get, task_id))

    async def list(self, limit: int) -> Sequence[CollectedTask]:
        return await self._thread.do(partial(self._database.list, limit))

    async def counts(self) -> tuple[int, int]:
        return await self._thread.do(self._database.counts)

    async def remove_expired(self, ended_before: float) -> None:
        await self._thread.do(partial(self._database.remove_expired, ended_before))

    async def close(self) -> None:
        """Safe to call twice, and without `open`."""
        if not self._closed:
            self._closed = True
            await self._thread.do(self._database.close)
            self._thread.end()
