"""The database of background tasks, used from the event loop: a thread of its own waits for the disk."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from anywire.errors import PluginFailed
from anywire_service_background.database import Database
from anywire_service_background.records import Kept, Left

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Store:
    """Each call is that of `anywire_service_background.database.Database`, in the order in which they are made; one
    whose caller is cancelled may be done or not. All raise `PluginFailed` when the disk does not do what it should,
    which is logged when it begins and when it is over."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, "background-tasks")
        self._fails = self._closed = False

    async def open(self) -> bool:
        return await self._do(self._database.open)

    async def add(self, task: Left, tenant: str, key: str, digest: bytes, submission: bytes, expired: float) -> None:
        await self._do(partial(self._database.add, task, tenant, key, digest, submission, expired))

    async def by_key(self, key: str, expired: float) -> tuple[str, bytes] | None:
        return await self._do(partial(self._database.by_key, key, expired))

    async def get(self, task_id: str) -> Kept | None:
        return await self._do(partial(self._database.get, task_id))

    async def not_ended(self) -> list[Left]:
        return await self._do(self._database.not_ended)

    async def started(self, task_id: str) -> None:
        await self._do(partial(self._database.started, task_id))

    async def forgive_starts(self) -> None:
        await self._do(self._database.forgive_starts)

    async def end(self, task_id: str, answer: bytes, ended: float, failed: bool) -> None:
        await self._do(partial(self._database.end, task_id, answer, ended, failed))

    async def remove(self, task_id: str) -> None:
        await self._do(partial(self._database.remove, task_id))

    async def remove_expired(self, expired: float) -> None:
        await self._do(partial(self._database.remove_expired, expired))

    async def close(self) -> None:
        """Safe to call twice, and without `open`."""
        if not self._closed:
            self._closed = True
            await self._do(self._database.close)
            self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], Result]) -> Result:
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            if not self._fails:
                log.error("background tasks and answers cannot be kept or read now: %s", error)
            self._fails = True
            raise PluginFailed(
                "background tasks cannot be kept or read now; the orchestrator's log has more"
            ) from error
        if self._fails:
            self._fails = False
            log.info("background tasks and answers can be kept again")
        return result
