"""What is to be published, kept on the disk until JetStream has it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anywire.clock import Clock, SystemClock
from anywire.errors import PluginFailed, QueueFull
from anywire.files.database_thread import DatabaseThread, DiskFaults, taken_over
from anywire_service_nats.envelopes import Envelope, Generation, encode, header_text, headers
from anywire_service_nats.outbox_tables import FORM, Content, OutboxTables, Put, Unsettled, Waiting
from anywire_service_nats.outgoing import Outgoing

if TYPE_CHECKING:
    from anywire_service_nats.outgoing import Publisher

log = logging.getLogger(__name__)

MOST_TOGETHER = 256
"""Calls that are written to the disk at once."""

_Write = tuple[Callable[[], Any], asyncio.Future[Any]]


class Outbox:
    """A `Publisher` whose file is in ``folder``, at most ``most_messages`` with ``most_bytes``. What is put while
    another process has the folder waits until that has ended."""

    def __init__(
        self, folder: Path, generation: Generation, most_messages: int, most_bytes: int, clock: Clock | None = None
    ) -> None:
        self._folder, self._generation, self._clock = folder, generation, clock or SystemClock()
        self._tables = OutboxTables(folder, most_messages, most_bytes)
        self._thread = DatabaseThread("nats-outbox", DiskFaults(FORM.kept))
        self._opened = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._writes: list[_Write] = []
        self._writing: asyncio.Task[None] | None = None
        self._closed = False
        self.filled = asyncio.Event()
        """Set when something was put. Whoever publishes clears it before it looks."""
        self.uncertain = False
        """Set when something is put that another process may have published."""
        self.messages = self.bytes = 0
        """How much waits."""
        self._behind_since: float | None = None

    @property
    def behind(self) -> float:
        """Seconds since the outbox was empty."""
        return self._clock.now() - self._behind_since if self._behind_since is not None else 0.0

    async def open(self) -> None:
        """Raises `ConfigError` when the folder cannot be used."""
        if await self._thread.do(self._tables.open):
            await self._begin()
            return
        log.warning(
            "another process has the outbox in %s: what is to be published waits until that has ended. Where both are "
            "to run, set services.nats.folder for one of them",
            self._folder,
        )
        self._opening = asyncio.create_task(self._take_over())

    async def close(self) -> None:
        """Write what was put, and release the folder. Safe to call twice, and without `open`."""
        if self._closed:
            return
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._writing is not None:
            await asyncio.wait([self._writing])
        with suppress(PluginFailed):
            await self._thread.do(self._tables.close)
        self._thread.end()
        self._opened.set()

    async def put(
        self,
        messages: Sequence[Outgoing],
        ended: Sequence[tuple[str, str]] = (),
        since: float = 0.0,
        *,
        uncertain: bool = False,
    ) -> None:
        """See `Publisher.put`. ``ended`` are deliberations (tenant, id) whose last message is among them. With
        ``since`` (seconds since 1970) another process may publish them too, after that time: their streams are searched
        first where it may have done so, which ``uncertain`` says, and later `doubt`."""
        puts = [_as_put(each, self._generation) for each in messages]
        write = partial(self._tables.put, puts, ended, since, uncertain=uncertain, now=time.time())
        found = await self._write(write, uncertain=uncertain)
        if isinstance(found, QueueFull):
            raise found
        self.filled.set()

    async def begin(self, tenant: str, question_id: str, caller: bytes) -> None:
        """Note that a deliberation is under way, until its end is put (`put`) or `forget` is called."""
        await self._write(partial(self._tables.begin, tenant, question_id, caller))

    async def forget(self, tenant: str, question_id: str) -> None:
        await self._write(partial(self._tables.forget, tenant, question_id))

    async def begun(self) -> Sequence[tuple[str, str, bytes]]:
        """What was noted by `begin`: tenant, id, caller."""
        await self._wait_open()
        return await self._thread.do(self._tables.begun)

    async def lacks(self, ids: Sequence[str]) -> bool:
        """Whether a message with any of these ids was neither put nor published, as far as is remembered."""
        await self._wait_open()
        return await self._thread.do(partial(self._tables.lacks, [header_text(each) for each in ids]))

    # For whoever publishes

    async def step(
        self, done: Sequence[Waiting | Unsettled], held: Sequence[str], most: int, most_bytes: int
    ) -> list[Waiting]:
        """Remove what is ``done``, and get what is next; see `OutboxTables.step`."""
        await self._wait_open()
        found: list[Waiting] = await self._counted(partial(self._tables.step, done, held, most, most_bytes))
        return found

    async def mark(self, messages: Sequence[Waiting], streams: Mapping[str, tuple[str, int]], now: float) -> None:
        await self._thread.do(partial(self._tables.mark, messages, streams, now))

    async def replace(self, message: Waiting) -> None:
        await self._counted(partial(self._tables.replace, message))

    async def unmark(self, numbers: Sequence[int]) -> None:
        await self._thread.do(partial(self._tables.unmark, numbers))

    async def doubt(self, seconds: float) -> None:
        """Search the streams first for what another process may publish too, and has waited for so many seconds."""
        await self._wait_open()
        await self._thread.do(partial(self._tables.doubt, time.time() - seconds))

    async def unsettled(self, most: int) -> list[Unsettled]:
        await self._wait_open()
        return await self._thread.do(partial(self._tables.unsettled, most))

    # Inside

    async def _begin(self) -> None:
        await self._counted(lambda: None)
        self._opened.set()
        if self.messages:
            log.info("%d messages were not published before the last end, and are now", self.messages)
        self.filled.set()

    async def _take_over(self) -> None:
        try:
            await taken_over(partial(self._thread.do, self._tables.open), self._clock)
            await self._begin()
        except Exception as error:
            log.error("nothing is published: %s", error)

    async def _wait_open(self) -> None:
        await self._opened.wait()
        if self._closed:
            raise PluginFailed("nothing is published any more: the orchestrator ends")

    async def _counted(self, work: Callable[[], Any]) -> Any:
        def do() -> tuple[Any, tuple[int, int]]:
            return work(), self._tables.waiting()

        result, (self.messages, self.bytes) = await self._thread.do(do)
        if not self.messages:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._clock.now()
        return result

    async def _write(self, write: Callable[[], Any], *, uncertain: bool = False) -> Any:
        """What ``write`` returns, done in one transaction with others that wait."""
        await self._wait_open()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writes.append((write, done))
        # Before it is written: whoever publishes settles it before it takes anything that is put after it.
        self.uncertain = self.uncertain or uncertain
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return await done

    async def _write_all(self) -> None:
        try:
            while self._writes:
                batch, self._writes = self._writes[:MOST_TOGETHER], self._writes[MOST_TOGETHER:]
                results: Sequence[Any]
                try:
                    results = await self._counted(partial(self._tables.together, [write for write, _ in batch]))
                except Exception as error:
                    results = [error] * len(batch)
                for (_, done), result in zip(batch, results, strict=True):
                    if done.done():
                        continue
                    if isinstance(result, sqlite3.Error):
                        done.set_exception(PluginFailed(f"{FORM.kept} cannot be kept now"))
                    elif isinstance(result, Exception) and not isinstance(result, QueueFull):
                        done.set_exception(result)
                    else:
                        done.set_result(result)
        finally:
            self._writing = None


def _as_put(message: Outgoing, generation: Generation) -> Put:
    instead = None if message.instead is None else _content(*message.instead, generation)
    content = _content(message.subject, message.envelope, generation)
    return Put(header_text(message.envelope.id), message.order, content, instead)


def _content(subject: str, envelope: Envelope, generation: Generation) -> Content:
    return Content(subject, headers(envelope), encode(envelope, generation))


if TYPE_CHECKING:

    def _is_a_publisher(outbox: Outbox) -> Publisher:
        return outbox
