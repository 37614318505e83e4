"""The service ``background``: tasks whose client comes back for the answer."""

from __future__ import annotations

from typing import Any

from anywire.background import SERVICE
from anywire.context import Context
from anywire.service import Service
from anywire_service_background.config import BackgroundConfig
from anywire_service_background.database import Database
from anywire_service_background.kept_tasks import KeptTasks
from anywire_service_background.store import Store


class Background(Service):
    """Runs background tasks as ordinary tasks of the pipeline; see `anywire.background.BackgroundTasks`.

    A task is kept before its id is told. One that has not ended when the process does is run again by the next one:
    its text may be made twice then, and its client gets one answer. A folder has one process at a time; another one
    begins once that has ended.
    """

    name = SERVICE
    Config = BackgroundConfig

    config: BackgroundConfig

    def __init__(self, config: BackgroundConfig) -> None:
        super().__init__(config)
        self._store: Store | None = None
        self._tasks: KeptTasks | None = None

    @property
    def offered(self) -> Any:
        return self._tasks

    async def start(self, context: Context) -> None:
        config = self.config
        folder = config.folder.expanduser() if config.folder is not None else context.state_folder
        database = Database(folder.absolute(), config.max_tasks, config.max_bytes, config.tenant_share)
        self._store = Store(database)
        self._tasks = KeptTasks(context, self._store, config)
        await self._tasks.start()

    def gate_closed(self) -> None:
        if self._tasks is not None:
            self._tasks.stop()

    async def close(self) -> None:
        if self._tasks is not None:
            await self._tasks.close()
        if self._store is not None:
            await self._store.close()
