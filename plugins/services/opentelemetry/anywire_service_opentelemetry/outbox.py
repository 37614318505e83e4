"""What waits to be sent: bounded, in batches, sent again while the receiver is away."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Generic, TypeVar

from anywire_service_opentelemetry.receiver import Outcome

Item = TypeVar("Item")
BATCH = 128
"""Spans or lines of one request: encoding them takes some milliseconds, in which nothing else happens."""
BATCH_CHARS = 2_000_000
"""Characters of the texts of one request. Receivers take some megabytes: OpenTelemetry's Collector 20 MiB."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until a batch is sent again."""
LAST_SENDING = 2.0
"""Seconds that what waits at the end has for being sent."""

log = logging.getLogger(__name__)


class Outbox(Generic[Item]):
    """Sends what is put into it with ``send``, one batch after the other, ``interval`` seconds after the first of it
    came, or once a batch is full. While the receiver is away up to ``size`` items are kept; further ones are dropped
    and counted. ``what`` names the items in the log, which has one line when sending begins to fail and one when it
    works again. ``chars`` are those that an item may have, by which a batch is smaller. `start` it; close it.
    """

    def __init__(
        self,
        what: str,
        size: int,
        interval: float,
        send: Callable[[Sequence[Item]], Awaitable[Outcome]],
        chars: int = 1,
    ) -> None:
        self._batch = max(1, min(BATCH, BATCH_CHARS // chars))
        self._what, self._size, self._interval, self._send = what, size, interval, send
        self._items: deque[Item] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._full = asyncio.Event()
        self._some = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._failing = False
        self.sent = self.dropped = self.failures = self.rejected = 0
        """Items that were sent, that were dropped for want of room or refused whole, requests that failed, and items
        that the receiver did not take of requests that it took."""

    @property
    def waiting(self) -> int:
        return len(self._items)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._runner = self._loop.create_task(self._run(), name=f"opentelemetry {self._what}")

    def put(self, item: Item) -> None:
        """Keep it until it is sent, or drop it where there is no room. On the event loop alone."""
        items = self._items
        if len(items) >= self._size or self._stop.is_set():
            self.dropped += 1
            return
        items.append(item)
        if len(items) == 1:
            self._some.set()
        if len(items) >= self._batch:
            self._full.set()

    def put_from_anywhere(self, item: Item) -> None:
        """`put` from any thread."""
        loop = self._loop
        if loop is None:
            return
        try:
            inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            inside = False
        if inside:
            self.put(item)
        else:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self.put, item)

    async def close(self) -> None:
        """Send what waits, unless the receiver is away, and stop; idempotent."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._stop.set()
        self._some.set()
        self._full.set()
        await asyncio.wait((runner,), timeout=LAST_SENDING)
        if not runner.done():
            runner.cancel()
            await asyncio.wait((runner,))
        self.dropped += len(self._items)
        self._items.clear()

    async def _run(self) -> None:
        while True:
            if not self._items:
                if self._stop.is_set():
                    return
                self._some.clear()
                await self._some.wait()
                continue
            if len(self._items) < self._batch and not self._stop.is_set():
                self._full.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval):
                        await self._full.wait()
            if not await self._send_batch():
                return

    async def _send_batch(self) -> bool:
        """Send the oldest items, again and again until they are taken or refused; False where that is given up."""
        batch = list(islice(self._items, self._batch))
        pause = FIRST_PAUSE
        while True:
            try:
                outcome = await self._send(batch)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                outcome = Outcome(f"{type(error).__name__}: {error}")
            if not outcome.fault:
                self._forget(len(batch))
                self.sent += len(batch) - outcome.rejected
                self.rejected += outcome.rejected
                self._works(outcome)
                return True
            self.failures += 1
            self._fails(outcome)
            if not outcome.again:
                self._forget(len(batch))
                self.dropped += len(batch)
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(max(outcome.after, pause)):
                    await self._stop.wait()
            if self._stop.is_set():
                return False
            pause = min(2 * pause, LONGEST_PAUSE)

    def _forget(self, number: int) -> None:
        for _ in range(number):
            self._items.popleft()

    def _fails(self, outcome: Outcome) -> None:
        if not self._failing:
            self._failing = True
            log.warning(
                "%s cannot be sent to OpenTelemetry: %s; up to %d are kept, further ones are dropped",
                self._what,
                outcome.fault,
                self._size,
            )

    def _works(self, outcome: Outcome) -> None:
        if self._failing:
            self._failing = False
            log.info("%s are sent to OpenTelemetry again; %d were dropped so far", self._what, self.dropped)
        elif outcome.rejected and self.rejected == outcome.rejected:
            log.warning("OpenTelemetry's receiver did not take %d %s: %s", outcome.rejected, self._what, outcome.said)
