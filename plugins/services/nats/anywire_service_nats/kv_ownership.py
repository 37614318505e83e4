"""Whose a bucket is: one process at a time, by a record that is swapped, and a sign of life that others watch.

The record is written when the bucket changes hands, and by nobody else: its revision is the owner's fence. The owner
gives its sign of life under another key. A process that wants the bucket watches both. It swaps the record when the
record says that it is free, or when neither has changed for the owner's lease. Time counts only while the watcher sees
the bucket: while the servers are away, or the watcher itself stands still, no lease runs out.

A clock that goes wrong, or a watcher that swaps too early, costs the owner its bucket and nothing else: two owners that
both write are excluded by the fence, whatever the time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable

import msgspec

from anywire.errors import PluginFailed
from anywire_service_nats.broker import LONGEST_PAUSE
from anywire_service_nats.kv_bucket import Bucket, Gone, Refused
from anywire_service_nats.kv_form import BEAT, OWNER

log = logging.getLogger(__name__)

BEATS = 4
"""Signs of life within a lease."""
LEAST_GAP = 1.0
"""Seconds."""
RECONNECTING_S = LONGEST_PAUSE + 1.0
"""Seconds that an owner may need longer than a watcher to find servers that are back."""
LOST = "another orchestrator has taken them over, because this one gave no sign of life for its lease"
REMOVED = "the bucket was removed"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """An empty ``token`` says that nobody has the bucket. ``lease`` is in seconds."""

    token: str = ""
    host: str = ""
    pid: int = 0
    lease: float = 0.0


class Watch:
    """Says when an owner has given no sign of life for its lease. All times are seconds of one clock."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._since = self._looked = self._grace = 0.0

    def forget(self) -> None:
        """The servers are away: the owner may take longer to find them again."""
        self._seen, self._grace = None, RECONNECTING_S

    def is_dead(self, record: int, beat: int, lease: float, now: float) -> bool:
        """``record`` and ``beat`` are the revisions that are seen now. A look that comes later than half a lease after
        the one before begins anew; one within `LEAST_GAP` never does."""
        if self._seen not in (None, (record, beat)):
            self._grace = 0.0
        if self._seen != (record, beat) or now - self._looked > max(lease / 2, LEAST_GAP):
            self._seen, self._since = (record, beat), now
        self._looked = now
        return now - self._since >= lease + self._grace


class Ownership:
    """``on_lost`` is called once with a reason when the bucket is another process's."""

    def __init__(self, bucket: Bucket, lease: float, on_lost: Callable[[str], None]) -> None:
        self._bucket, self._on_lost = bucket, on_lost
        self._record = Record(secrets.token_hex(16), socket.gethostname(), os.getpid(), lease)
        self._watch = Watch()
        self.fence = 0
        """The revision of this process's record; 0 while the bucket is not its own."""
        self.held_by = ""
        """Who had the bucket at the last `take`, for sentences."""
        self._beating: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """Nobody could give a sign of life: the servers are away."""
        self._watch.forget()

    async def take(self) -> bool:
        """Become the owner, or look whether that is possible. Raises `PluginFailed`."""
        try:
            revision = await self._free()
            if revision is None:
                return False
            try:
                self.fence = await self._bucket.swap(OWNER, msgspec.json.encode(self._record), revision)
            except Refused:
                self._watch.forget()
                self.fence = await self._mine()
                if not self.fence:
                    return False
        except PluginFailed:
            self._watch.forget()
            raise
        self._beating = asyncio.create_task(self._beat())
        return True

    def lost(self, reason: str = LOST) -> None:
        """A write was refused."""
        if self.fence:
            self.fence = 0
            self._on_lost(reason)

    async def end(self) -> None:
        """Give no more signs of life."""
        if self._beating is not None and self._beating is not asyncio.current_task():
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def give_back(self) -> None:
        """Say that nobody has the bucket, if it is this process's."""
        fence, self.fence = self.fence, 0
        if fence:
            try:
                await self._bucket.swap(OWNER, msgspec.json.encode(Record()), fence)
            except (PluginFailed, Refused, Gone) as error:
                log.debug("the bucket is not given back: %r", error)

    async def _free(self) -> int | None:
        """The revision of a record that may be swapped; None while there is an owner."""
        found = await self._bucket.get(OWNER)
        if found is None:
            return 0
        try:
            record = msgspec.json.decode(found.data, type=Record)
        except (msgspec.MsgspecError, UnicodeError):
            record = Record("?", "?", 0, self._record.lease)
        if not record.token or record.token == self._record.token:
            return found.revision
        self.held_by = f"{record.host}, process {record.pid}"
        beat = await self._bucket.get(BEAT)
        now = asyncio.get_running_loop().time()
        lease = record.lease or self._record.lease
        return found.revision if self._watch.is_dead(found.revision, beat.revision if beat else 0, lease, now) else None

    async def _mine(self) -> int:
        """The revision of the record when it is this process's after all: its acknowledgement was lost."""
        found = await self._bucket.get(OWNER)
        if found is None:
            return 0
        record = msgspec.json.decode(found.data, type=Record)
        return found.revision if record.token == self._record.token else 0

    async def _beat(self) -> None:
        while self.fence:
            try:
                await self._bucket.put(BEAT, b"{}", OWNER, self.fence)
            except Refused:
                self.lost()
            except Gone:
                self.lost(REMOVED)
            except PluginFailed:  # it is logged; whoever has the bucket meanwhile is met by the next sign of life
                await self._look()
            await asyncio.sleep(self._record.lease / BEATS)

    async def _look(self) -> None:
        try:
            await self._bucket.look()
        except Gone:
            self.lost(REMOVED)
        except PluginFailed as error:
            log.debug("no sign of life could be given: %s", error)
