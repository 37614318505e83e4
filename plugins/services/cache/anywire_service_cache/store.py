"""Entries and their answers together: what is kept, and what is found again."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from anywire.clock import Clock
from anywire.engine import Delta
from anywire.errors import AnywireError
from anywire_service_cache.answers import decoded
from anywire_service_cache.config import CacheConfig
from anywire_service_cache.entries import Entries, Entry
from anywire_service_cache.payloads import Payloads

log = logging.getLogger(__name__)

READ_TIMEOUT = 0.25
"""Seconds that a task waits for the disk, and goes on then."""
PAUSE = 5.0
"""Seconds for which a disk that fails, or is slow, is left alone."""
MAX_WRITING_BYTES = 32 * 1024 * 1024
"""Bytes of answers that wait for the disk; a further one is not kept."""


class Store:
    """``counts`` has what went, by why, and ``failures``. ``now`` tells Unix time in seconds."""

    def __init__(
        self, config: CacheConfig, payloads: Payloads, clock: Clock, now: Callable[[], float], counts: Counter[str]
    ) -> None:
        self._payloads, self._clock, self._now, self._counts = payloads, clock, now, counts
        self.entries = Entries(config.max_entries, config.max_bytes, config.max_age, self._went)
        self._gone: list[bytes] = []
        """Keys whose answers are still to be removed."""
        self._writing = 0
        self._rests_until = 0.0

    @property
    def rests(self) -> bool:
        """Whether the disk is left alone."""
        return self._clock.now() < self._rests_until

    async def load(self) -> None:
        """Take over what is kept from before. Raises `PluginFailed` when that cannot be read. What is too old or too
        much is removed with the next answer that is kept, where the disk is full now."""
        now = self._now()
        for entry in await self._payloads.entries():
            if self.entries.fits(entry.size):
                self.entries.add(entry, now)
            else:
                self._went(entry, "full")
        try:
            await self._remove_gone()
        except AnywireError as error:
            self._failed(error)

    async def answer(self, entry: Entry) -> tuple[Delta, ...] | None:
        """What was given then; None where it cannot be had now."""
        if self.rests:
            return None
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                data = await self._payloads.get(entry.key)
        except (AnywireError, TimeoutError) as error:
            self._failed(error)
            return None
        found = decoded(data) if data is not None else None
        if data is not None and found is None:
            self._counts["failures"] += 1
            log.error("a kept answer is damaged, and is kept no more")
        if found is None and self.entries.remove(entry.key) is not None:
            self._gone.append(entry.key)
        return found

    async def keep(self, entry: Entry, answer: bytes) -> bool:
        """Keep an answer, in place of one with its key. False where there is no room for it, or the disk fails."""
        if self.rests or not self.entries.fits(entry.total) or self._writing + len(answer) > MAX_WRITING_BYTES:
            return False
        self.entries.add(entry, self._now())
        if entry.key in self._gone:
            self._gone.remove(entry.key)
        self._writing += len(answer)
        try:
            await self._payloads.put(entry, answer)
            await self._remove_gone()
        except AnywireError as error:
            self._failed(error)
            self.entries.remove(entry.key)
            self._gone.append(entry.key)  # the file may have the one that it was to replace
            return False
        finally:
            self._writing -= len(answer)
        return True

    async def clear(self, scope: str | None, model: str) -> int:
        """Keep nothing more of a scope, None for all, and a model, empty for all; how many those were. Raises
        `PluginFailed`: none of them is given any more all the same, before a restart."""
        gone = [entry.key for entry in self.entries.matching(scope, model)]
        for key in gone:
            self.entries.remove(key)
        self._gone += gone
        await self._remove_gone()
        return len(gone)

    async def _remove_gone(self) -> None:
        if self._gone:
            gone, self._gone = self._gone, []
            try:
                await self._payloads.remove(gone)
            except AnywireError:
                self._gone += gone
                raise

    def _went(self, entry: Entry, why: str) -> None:
        self._counts[why] += 1
        self._gone.append(entry.key)

    def _failed(self, error: Exception) -> None:
        """The disk is asked again after a pause: each task would wait for it otherwise."""
        self._counts["failures"] += 1
        if not self.rests:
            what = f"did not answer within {READ_TIMEOUT:g} s" if isinstance(error, TimeoutError) else str(error)
            log.warning("no answers are kept or given again for %g s: the disk %s", PAUSE, what)
        self._rests_until = self._clock.now() + PAUSE
