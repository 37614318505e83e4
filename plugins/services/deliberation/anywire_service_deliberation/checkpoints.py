"""Brings what was written to where no loss of power takes it, in a thread of its own, while others write and read.

A write is in the database's write-ahead log when it returns, but not yet on the disk: it outlives this process, however
that ends, and the operating system writes it out when it likes. A checkpoint syncs that log, copies it to the database
and syncs this too. So a machine that loses its power loses what was written in the last second, or the last two, and
the database is whole without it.

Precedents: Redis syncs its log each second (``appendfsync everysec``), MySQL with ``innodb_flush_log_at_trx_commit=2``.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

log = logging.getLogger(__name__)

EACH_S = 1.0
"""Seconds from a write to the checkpoint that has it."""


class Checkpoints:
    """Of the database at ``path``, which another connection has opened before the first call of `written`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "deliberations-checkpoint")
        self._connection: sqlite3.Connection | None = None
        self._due: asyncio.TimerHandle | None = None
        self._making: asyncio.Future[None] | None = None
        self._is_behind = self._fails = self._closed = False

    def written(self) -> None:
        """Something was written: make a checkpoint within `EACH_S`. Called on the event loop."""
        self._is_behind = True
        if self._due is None and self._making is None and not self._closed:
            self._due = asyncio.get_running_loop().call_later(EACH_S, self._begin)

    async def close(self) -> None:
        """Make no more. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._due is not None:
            self._due.cancel()
        if self._making is not None:
            await asyncio.wait((self._making,))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _begin(self) -> None:
        self._due, self._is_behind = None, False
        self._making = asyncio.get_running_loop().run_in_executor(self._thread, self._make)
        self._making.add_done_callback(self._made)

    def _made(self, making: asyncio.Future[None]) -> None:
        self._making, error = None, making.exception()
        if error is not None and not self._fails:
            log.error("what deliberations have written does not outlive a loss of power now: %s", error)
        elif error is None and self._fails:
            log.info("what deliberations write outlives a loss of power again")
        self._fails = error is not None
        if self._is_behind or self._fails:
            self.written()

    # In the thread

    def _make(self) -> None:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
        # It waits for nobody, and nobody waits for it.
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
