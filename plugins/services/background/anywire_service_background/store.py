"""The database of background tasks, used from the event loop: a thread of its own waits for the disk."""

from __future__ import annotations

from functools import partial

from anywire.files.database_thread import DatabaseThread, DiskFaults
from anywire_service_background.database import FORM, Database
from anywire_service_background.records import Kept, Left


class Store:
    """Each call is that of `anywire_service_background.database.Database`, in the order in which they are made; one
    whose caller is cancelled may be done or not. All raise `PluginFailed` when the disk does not do what it should,
    which is logged when it begins and when it is over."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = DatabaseThread("background-tasks", DiskFaults(FORM.kept))
        self._closed = False

    async def open(self) -> bool:
        return await self._thread.do(self._database.open)

    async def add(self, task: Left, tenant: str, key: str, digest: bytes, submission: bytes, expired: float) -> None:
        await self._thread.do(partial(self._database.add, task, tenant, key, digest, submission, expired))

    async def by_key(self, key: str, expired: float) -> tuple[str, bytes] | None:
        return await self._thread.do(partial(self._database.by_key, key, expired))

    async def get(self, task_id: str) -> Kept | None:
        return await self._thread.do(partial(self._database.get, task_id))

    async def not_ended(self) -> list[Left]:
        return await self._thread.do(self._database.not_ended)

    async def started(self, task_id: str) -> None:
        await self._thread.do(partial(self._database.started, task_id))

    async def forgive_starts(self) -> None:
        await self._thread.do(self._database.forgive_starts)

    async def end(self, task_id: str, answer: bytes, ended: float, failed: bool) -> None:
        await self._thread.do(partial(self._database.end, task_id, answer, ended, failed))

    async def remove(self, task_id: str) -> None:
        await self._thread.do(partial(self._database.remove, task_id))

    async def remove_expired(self, expired: float) -> None:
        await self._thread.do(partial(self._database.remove_expired, expired))

    async def close(self) -> None:
        """Safe to call twice, and without `open`."""
        if not self._closed:
            self._closed = True
            await self._thread.do(self._database.close)
            self._thread.end()
