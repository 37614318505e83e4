"""The log as the event loop uses it: entries are handed over and a thread writes them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from anywire_service_audit.chain import LOST, Entry
from anywire_service_audit.journal import Journal

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Entries that wait to be written; what does not fit is lost, and counted."""
MAX_BATCH = 1000

_Waiting = tuple[Entry, "asyncio.Future[bool] | None"]


class Writer:
    """Writes to ``journal`` in the order of `add`. What cannot be written is tried again with the next entry."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.lost = 0
        """Entries that were given up since the start."""
        self.error = ""
        """Why nothing can be written now; empty when it can."""
        self.head = journal.head
        """Number and hash of the newest entry on the disk."""
        self._waiting: deque[_Waiting] = deque()
        self._executor = ThreadPoolExecutor(1, "audit")
        self._writing: asyncio.Future[tuple[int, OSError | None]] | None = None
        self._in_writing = self._untold = 0
        self._arrived = False
        """Whether an entry has come since the last attempt to write began."""
        self._closed = False

    @property
    def waiting(self) -> int:
        """Entries that are not on the disk yet."""
        return len(self._waiting) + self._in_writing

    async def open(self) -> None:
        """Open the log. Raises `ConfigError`, and `OSError` when it cannot be written now; then it is tried again with
        the next entry."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self.journal.open)
        except OSError as error:
            self._failed(error)
            raise
        self.head = self.journal.head

    def add(self, entry: Entry, written: asyncio.Future[bool] | None = None) -> None:
        """Hand an entry over. ``written`` becomes true once it is on the disk, false when it could not be written."""
        if self.waiting >= MAX_WAITING or self._closed:
            self._lose(written)
            return
        self._waiting.append((entry, written))
        self._arrived = True
        self._write()

    async def written(self, entry: Entry) -> bool:
        """Hand an entry over and wait: whether it is on the disk."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.add(entry, done)
        return await done

    async def close(self) -> None:
        """Write what waits, and end the log. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._waiting:
            self._write()
        while self._writing is not None:
            await asyncio.wait((self._writing,))
            await asyncio.sleep(0)  # its callback begins the next batch
        if self._waiting:
            log.error("%d entries of the audit log could not be written: %s", len(self._waiting), self.error)
            self._waiting.clear()
        await asyncio.get_running_loop().run_in_executor(self._executor, self.journal.close)
        self._executor.shutdown(wait=False)

    # Inside

    def _write(self) -> None:
        if self._writing is not None or not self._waiting:
            return
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        entries = [entry for entry, _ in batch]
        self._in_writing, self._arrived = len(batch), False
        writing = asyncio.get_running_loop().run_in_executor(self._executor, self.journal.append, entries)
        self._writing = writing
        writing.add_done_callback(lambda done: self._wrote(batch, done))

    def _wrote(self, batch: Sequence[_Waiting], done: asyncio.Future[tuple[int, OSError | None]]) -> None:
        self._writing, self._in_writing, self.head = None, 0, self.journal.head
        count, error = (0, done.exception()) if done.exception() is not None else done.result()
        for _, written in batch[:count]:
            _tell(written, True)
        if error is not None:
            self._failed(error)
            for _, written in batch[count:]:
                _tell(written, False)
            for entry, _ in reversed(batch[count:]):
                self._waiting.appendleft((entry, None))
            if self._arrived:
                self._write()
            return
        if self.error:
            log.warning("the audit log is written again; %d entries are lost", self._untold)
            self.error = ""
        if self._untold:
            self._waiting.append((Entry(time.time(), LOST, outcome="lost", detail={"count": self._untold}), None))
            self._untold = 0
        self._write()

    def _failed(self, error: BaseException) -> None:
        if not self.error:
            log.error("the audit log cannot be written, entries wait: %s", error)
        self.error = str(error)

    def _lose(self, written: asyncio.Future[bool] | None) -> None:
        if not self._untold:
            log.error("the audit log is not written fast enough: entries are lost, and counted")
        self.lost += 1
        self._untold += 1
        _tell(written, False)


def _tell(written: asyncio.Future[bool] | None, value: bool) -> None:
    if written is not None and not written.done():
        written.set_result(value)
