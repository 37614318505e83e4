"""Reading a task's stream: its chunks, and for a client that asks for it what its agent does meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from anywire.errors import StreamCorrupted
from anywire.messages import Chunk, Progress
from anywire.task_stream import TaskStream

MAX_WAITING = 16
"""Changes that may wait for a slow client; of more the newest are told."""

Read = Callable[[], Awaitable[list[Chunk] | Progress]]
Passing = Callable[[Callable[[list[Chunk]], bool]], Awaitable[list[Chunk]]]
"""Reads as `TaskStream.take_passing` does."""


class Takes(Protocol):
    """A task's stream, or a reader of one that several read."""

    async def take(self) -> list[Chunk]: ...


async def next_chunks(stream: Takes) -> list[Chunk]:
    """What waits, at least one chunk. Raises `StreamCorrupted` when there is none any more."""
    return _at_least_one(await stream.take())


async def next_chunks_passing(stream: TaskStream, pass_on: Callable[[list[Chunk]], bool]) -> list[Chunk]:
    """As `next_chunks`; what comes meanwhile is given to ``pass_on``, see `TaskStream.take_passing`."""
    return _at_least_one(await stream.take_passing(pass_on))


def _at_least_one(chunks: list[Chunk]) -> list[Chunk]:
    if not chunks:
        raise StreamCorrupted("the stream ended without its final chunk", phase="streaming")
    return chunks


class ProgressReader:
    """Reads a stream, and before what waits in it every change that its agent has told. Close it.

    That it is running is told after something else only: most tasks run at once, and an error of these is to have a
    status of its own.
    """

    def __init__(self, stream: TaskStream) -> None:
        self._stream = stream
        self._changes: deque[Progress] = deque(maxlen=MAX_WAITING)
        self._changed: asyncio.Future[None] | None = None
        self._reading: asyncio.Task[list[Chunk]] | None = None
        self._told = False
        if stream.progress is not None:
            self._progressed(stream.progress)
        stream.on_progress(self._progressed)

    async def next(self) -> list[Chunk] | Progress:
        """What waits, at least one chunk, or a change. Raises what the stream raises, and `StreamCorrupted` when there
        is nothing any more."""
        while not self._changes:
            if self._reading is None:
                self._reading = asyncio.ensure_future(next_chunks(self._stream))
            self._changed = asyncio.get_running_loop().create_future()
            either: set[asyncio.Future[Any]] = {self._reading, self._changed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._reading.done() and not self._changes:
                reading, self._reading = self._reading, None
                return reading.result()
        return self._changes.popleft()

    def close(self) -> None:
        self._stream.on_progress(lambda progress: None)
        if self._reading is not None:
            self._reading.cancel()

    def _progressed(self, progress: Progress) -> None:
        if progress.state == "running" and not self._told:
            return
        self._told = True
        self._changes.append(progress)
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
