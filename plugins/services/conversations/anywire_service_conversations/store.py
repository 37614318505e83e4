"""The database of conversations and responses, used from the event loop: a thread of its own waits for the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anywire.errors import ShuttingDown
from anywire.files.database_thread import DatabaseThread, DiskFaults
from anywire_service_conversations.database import FORM, Database

Result = TypeVar("Result")


class Store:
    """What is done with the database is done in the order of the calls. Raises `PluginFailed` when the disk does not do
    what it should, which is logged when it begins and when it is over."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = DatabaseThread("conversations", DiskFaults(FORM.kept))
        self._closed = False

    async def open(self) -> bool:
        return await self._thread.do(self._database.open)

    async def do(self, work: Callable[[Database], Result]) -> Result:
        """What ``work`` returns for the database. Raises `ShuttingDown` after `close`."""
        if self._closed:
            raise ShuttingDown("the conversations are closed: the orchestrator ends", retry_after=1)
        return await self._thread.do(lambda: work(self._database))

    async def close(self) -> None:
        """Safe to call twice, and without `open`."""
        if not self._closed:
            self._closed = True
            await self._thread.do(self._database.close)
            self._thread.end()
