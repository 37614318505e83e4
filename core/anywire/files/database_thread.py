"""Files that an event loop uses without waiting for the disk itself."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from anywire.clock import Clock
from anywire.errors import PluginFailed

log = logging.getLogger(__name__)

Result = TypeVar("Result")

LOCK_PAUSE = 0.5
"""Seconds between attempts to take over the folder of a process that still ends."""


async def taken_over(take: Callable[[], Awaitable[bool]], clock: Clock) -> None:
    """Wait until ``take`` has returned True: what another process has is taken once that has ended. Raises what
    ``take`` raises."""
    while not await take():
        await clock.sleep(LOCK_PAUSE)  # nobody tells that a process of others has ended


class DiskFaults:
    """Tells of a disk that fails: in the log when that begins and when it is over, and to each caller. ``kept`` are
    the things that are kept there, in the plural, for sentences. Threads of one file share one."""

    def __init__(self, kept: str) -> None:
        self._kept, self._fails = kept, False

    def failed(self, error: sqlite3.Error) -> PluginFailed:
        """What a caller is told. The log alone names the error, which may name files."""
        if not self._fails:
            log.error("%s cannot be kept or read now: %s", self._kept, error)
        self._fails = True
        return PluginFailed(f"{self._kept} cannot be kept or read now; the orchestrator's log has more")

    def worked(self) -> None:
        if self._fails:
            self._fails = False
            log.info("%s can be kept again", self._kept)


class DatabaseThread:
    """The one thread that uses one `anywire.files.database_file.DatabaseFile`. ``name`` is the thread's, for whoever
    looks at the process."""

    def __init__(self, name: str, faults: DiskFaults) -> None:
        self._executor, self._faults = ThreadPoolExecutor(1, name), faults

    async def do(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns, done on the thread, in the order of the calls. A call whose caller is cancelled may be
        done or not. Raises what ``work`` raises, and `PluginFailed` for `sqlite3.Error`."""
        try:
            result = await self.call(work)
        except sqlite3.Error as error:
            raise self._faults.failed(error) from error
        self._faults.worked()
        return result

    def call(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """As `do`, for work that tells of a disk that fails by itself."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def end(self) -> None:
        """Let the thread end once it has done what it was called for. Nothing may be called for afterwards; safe to
        call twice."""
        self._executor.shutdown(wait=False)
