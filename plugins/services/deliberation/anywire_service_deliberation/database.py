"""Deliberations in SQLite, used from the event loop: one thread writes, another one reads beside it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from anywire.errors import PluginFailed
from anywire.files.database_thread import DatabaseThread, DiskFaults
from anywire_service_deliberation.checkpoints import Checkpoints
from anywire_service_deliberation.database_form import FORM
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.store import Place, Store, StoreConfig
from anywire_service_deliberation.store import tenant_of as tenant_of
from anywire_service_deliberation.tables import Tables

MAX_TOGETHER = 4
"""Writes of one transaction at most: a new deliberation waits for no longer one. Each statement of it gives the
interpreter away, and a busy event loop gives it back up to 5 ms later."""
REMOVED_TOGETHER = 8
"""Deliberations that one write removes."""
READ_TOGETHER = 8
"""Deliberations of a list that are read at once: whoever asks for one of them waits for no more."""

Result = TypeVar("Result")
_Write = tuple[Callable[[], Any], asyncio.Future[Any]]
_Batch = list[_Write]
_Results = list[Any]
_Waiting = SimpleQueue[_Write]


class Database(Store):
    """The store in a file of ``folder``, which one process has at a time. ``max_kept`` bounds the deliberations that
    are kept after their end.

    Writes are done in the order in which they are called for, but that new deliberations overtake all others: somebody
    waits for their ids. Of those others one transaction is between two of new ones. A write whose caller is cancelled
    is done all the same. A disk that fails is logged when that begins and when it is over.

    What is written outlives this process, however it ends. A loss of power takes what was written in the last second or
    two: see `anywire_service_deliberation.checkpoints`.
    """

    def __init__(self, folder: Path, max_kept: int = 10_000) -> None:
        self._tables, self._read_tables = Tables(folder), Tables(folder, reader=True)
        self._checkpoints = Checkpoints(folder / FORM.file)
        self._max_kept = max_kept
        self.waits_for = (
            f"another orchestrator has those in {folder}. Where both are to run, set services.deliberation.folder for "
            "one of them"
        )
        self._faults = DiskFaults(FORM.kept)
        self._writer = DatabaseThread("deliberations-write", self._faults)
        self._reader = DatabaseThread("deliberations-read", self._faults)
        self._new: _Waiting = SimpleQueue()
        self._other: _Waiting = SimpleQueue()
        """What waits to be written: the event loop puts it in, the thread that writes takes it out."""
        self._writing: asyncio.Future[None] | None = None
        self._closed = False

    @classmethod
    def make(cls, config: StoreConfig, place: Place) -> Database:
        return cls(place.folder, place.max_kept)

    async def open(self, on_lost: Callable[[str], None] | None = None) -> bool:
        """False while another process has the folder. Raises `ConfigError` when it cannot be used. It is never lost:
        the operating system keeps its lock for this process."""
        return await self._writer.do(self._tables.open) and await self._reader.do(self._read_tables.open)

    async def close(self) -> None:
        """Write what was called for, and release the folder. Safe to call twice, and without `open`."""
        if self._closed:
            return
        self._closed = True
        while self._writing is not None:
            await asyncio.wait((self._writing,))
        await self._checkpoints.close()
        await self._reader.do(self._read_tables.close)
        await self._writer.do(self._tables.close)
        self._reader.end()
        self._writer.end()

    async def add(self, state: Deliberation) -> Deliberation:
        return await self._write(partial(self._tables.add, tenant_of(state.question.caller), state), self._new)

    async def keep(self, state: Deliberation) -> None:
        await self._write(partial(self._tables.keep, tenant_of(state.question.caller), state), self._other)

    async def get(self, tenant: str | None, question_id: str) -> Deliberation | None:
        return await self._read(lambda tables: tables.get(tenant, question_id))

    async def list(self, tenant: str | None, status: str, role: str, limit: int) -> Sequence[Deliberation]:
        numbers = await self._read(lambda tables: tables.listed(tenant, status, role, limit))
        found: list[Deliberation] = []
        for at in range(0, len(numbers), READ_TOGETHER):
            some = numbers[at : at + READ_TOGETHER]
            found += await self._read(partial(Tables.without_texts, numbers=some))
        return [state for state in found if status in ("", state.status)]

    async def unfinished(self) -> Sequence[Deliberation]:
        return await self._read(lambda tables: tables.unfinished())

    async def purge(self, now: float) -> int:
        gone = await self._read(lambda tables: tables.expired(now, self._max_kept))
        for at in range(0, len(gone), REMOVED_TOGETHER):
            await self._write(partial(self._tables.remove, gone[at : at + REMOVED_TOGETHER]), self._other)
        return len(gone)

    async def councils(self) -> Sequence[tuple[str, Council]]:
        return await self._read(lambda tables: tables.councils())

    async def put_council(self, tenant: str, council: Council) -> None:
        await self._write(partial(self._tables.put_council, tenant, council), self._other)

    async def delete_council(self, tenant: str, name: str) -> bool:
        return await self._write(partial(self._tables.delete_council, tenant, name), self._other)

    # Inside

    async def _write(self, write: Callable[[], Result], waiting: _Waiting) -> Result:
        if self._closed:
            raise PluginFailed("deliberations are not kept any more: the orchestrator ends")
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting.put((write, done))
        if self._writing is None:
            self._begin_writing()
        return await done

    def _begin_writing(self) -> None:
        self._writing = self._writer.call(partial(self._write_all, asyncio.get_running_loop()))
        self._writing.add_done_callback(self._all_written)

    def _all_written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        writing.result()
        if not (self._new.empty() and self._other.empty()):  # it came while the thread was ending
            self._begin_writing()

    def _write_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread that writes, which waits for no turn of the event loop between two transactions."""
        while True:
            batches = 0
            for waiting in (self._new, self._other):
                batch = _taken(waiting)
                if batch:
                    batches += 1
                    loop.call_soon_threadsafe(self._tell, batch, self._written_together(batch))
            if not batches:
                return

    def _written_together(self, batch: _Batch) -> _Results:
        try:
            return self._tables.together([write for write, _ in batch])
        except Exception as error:
            return [error] * len(batch)

    def _tell(self, batch: _Batch, results: _Results) -> None:
        """On the event loop: what came of each write."""
        if not any(isinstance(result, sqlite3.Error) for result in results):
            self._faults.worked()
            self._checkpoints.written()
        for (_, done), result in zip(batch, results, strict=True):
            if done.cancelled():
                continue
            if isinstance(result, sqlite3.Error):
                done.set_exception(self._faults.failed(result))
            elif isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)

    async def _read(self, read: Callable[[Tables], Result]) -> Result:
        def at_one_time() -> Result:
            with self._read_tables.at_one_time():
                return read(self._read_tables)

        return await self._reader.do(at_one_time)


def _taken(waiting: _Waiting) -> _Batch:
    """The next ones, `MAX_TOGETHER` at most."""
    batch: _Batch = []
    with suppress(Empty):
        while len(batch) < MAX_TOGETHER:
            batch.append(waiting.get_nowait())
    return batch
