"""What a generator yields, on its way to a client that may be slow, go away or be kept waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from anywire.errors import AnywireError, ShuttingDown, TaskCancelled
from anywire_engine_models.local_api.api_errors import HttpError, as_anywire

READ_AHEAD = 16
"""Things that are read before the client has taken them."""
END_PATIENCE = 5.0
"""Seconds that a generator may take to end at its cancel; then it is left alone."""

Item = TypeVar("Item")


class _End(NamedTuple):
    error: AnywireError | None


class Telling(Generic[Item]):
    """Reads a generator in one task of its own, no further ahead than `READ_AHEAD`. Leaving it as a context manager
    cancels and closes the generator. `Tellings.open` makes one."""

    def __init__(self, items: AsyncIterator[Item], all_open: set[Telling[Any]]) -> None:
        self._all_open = all_open
        self._queue: asyncio.Queue[Item | _End] = asyncio.Queue()
        self._room = asyncio.Semaphore(READ_AHEAD)
        self._stopped = False
        all_open.add(self)
        self._task = asyncio.create_task(self._read(items))
        self._task.add_done_callback(self._end)

    async def next(self, patience: float | None = None) -> Item:
        """The next thing. Raises `StopAsyncIteration` after the last one, the `AnywireError` that the generator raised,
        and `TimeoutError` when there is none within ``patience`` seconds, after which it may be called again."""
        async with asyncio.timeout(patience):
            found = await self._queue.get()
        if isinstance(found, _End):
            self._queue.put_nowait(found)
            raise found.error or StopAsyncIteration
        self._room.release()
        return found

    def stop(self) -> None:
        """Read no further: after what was read, `next` raises `ShuttingDown`."""
        self._stopped = True
        self._task.cancel()

    async def _read(self, items: AsyncIterator[Item]) -> None:
        try:
            async for item in items:
                await self._room.acquire()
                self._queue.put_nowait(item)
        finally:
            if (close := getattr(items, "aclose", None)) is not None:
                await close()

    def _end(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, Exception):
            error: AnywireError | None = as_anywire(failure)
        elif self._stopped:
            error = ShuttingDown("this agent is stopping")
        else:
            error = TaskCancelled("the answer was cancelled") if task.cancelled() else None
        self._queue.put_nowait(_End(error))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all_open.discard(self)
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=END_PATIENCE)


class Tellings:
    """All of one server, at most ``most`` at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Telling[Any]] = set()
        self._stopped = False

    def open(self, items: AsyncIterator[Item]) -> Telling[Item]:
        """Begin to read ``items``. Raises `HttpError` when too many are open, and `ShuttingDown`."""
        if self._stopped:
            raise ShuttingDown("this agent is stopping")
        if len(self._open) >= self._most:
            raise HttpError(429, "too_many_requests", f"{self._most} requests are being answered already")
        return Telling(items, self._open)

    def stop(self) -> None:
        """Stop all that are open, and open no more."""
        self._stopped = True
        for each in tuple(self._open):
            each.stop()
