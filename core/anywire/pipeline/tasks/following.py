"""Followers of a task: they get the chunks that its reader gets, and hold nobody up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any

from anywire.errors import AnywireError, QueueFull
from anywire.messages import Chunk
from anywire.task_stream import TaskStream

MAX_FOLLOWERS = 64
"""Followers of one task."""
MAX_CHUNKS = 1024
"""Chunks that may wait for one follower; further ones are left out."""
MAX_CHARS = 1024 * 1024
"""Characters of them, one chunk of any size excepted."""


class Follower(AsyncGenerator[Chunk, None]):
    """The chunks of a task from now on, to its end; where its reader gets an error, iterating raises that.

    What comes while `MAX_CHUNKS` chunks wait is left out, the last chunk excepted: ``seq`` shows the gap. Close it with
    ``aclose``. Raises `QueueFull` when the task has `MAX_FOLLOWERS` already.
    """

    def __init__(self, stream: TaskStream) -> None:
        if len(stream.followers) >= MAX_FOLLOWERS:
            raise QueueFull(f"{MAX_FOLLOWERS} follow this task already", task_id=stream.task_id)
        self._stream = stream
        self._waiting: deque[Chunk] = deque()
        self._chars = 0
        self._ended = False
        self._error: AnywireError | None = None
        self._waiter: asyncio.Future[None] | None = None
        stream.followers = (*stream.followers, self)

    # What the stream tells

    def put(self, chunk: Chunk) -> None:
        if self._ended:
            return
        chars = sum(map(len, chunk.deltas)) + len(chunk.extra)
        full = len(self._waiting) >= MAX_CHUNKS or (self._waiting and self._chars + chars > MAX_CHARS)
        if not full or chunk.final:
            self._waiting.append(chunk)
            self._chars += chars
        self._ended = chunk.final
        self._wake()

    def fail(self, error: AnywireError) -> None:
        self._ended, self._error = True, error
        self._wake()

    # What the follower does

    async def asend(self, value: None) -> Chunk:
        while not self._waiting:
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error  # it refers to this frame
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._waiting.popleft()
        self._chars -= sum(map(len, chunk.deltas)) + len(chunk.extra)
        return chunk

    async def athrow(self, kind: Any, value: object = None, traceback: TracebackType | None = None) -> Chunk:
        """End it and raise what is thrown."""
        await self.aclose()
        raise kind

    async def aclose(self) -> None:
        """Follow no longer; safe to call twice."""
        self._ended, self._error = True, None
        self._waiting.clear()
        self._stream.followers = tuple(each for each in self._stream.followers if each is not self)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
