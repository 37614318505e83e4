"""Which streams have stalled: what a hub does when DDS says that instances missed their deadline.

DDS raises the alarm, for each stream by itself because chunks are keyed by task; its status names only one of the
instances that missed. Which they are is seen here, from the time of the last chunk of each.

A stream that waits for credit is not stalled: its reader is slow, and not its agent. Nor is one that has not begun, for
its agent may need long for the first token.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from anywire.messages import Cancel, Chunk, Credit, TaskRequest


class Stream(msgspec.Struct, eq=False):
    """A stream under way; ``heard`` is when it last made progress, 0 before its first chunk."""

    agent_id: str
    task_id: str
    attempt: int
    credit: int
    heard: float = 0.0


class Streams:
    """The streams of one hub whose chunks must come within ``period`` seconds of each other."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._streams: dict[tuple[str, int], Stream] = {}

    def sent(self, agent_id: str, message: object) -> None:
        """Something was sent to an agent."""
        match message:
            case TaskRequest(task_id=task_id, attempt=attempt, stream=True, credit=credit):
                self._streams[task_id, attempt] = Stream(agent_id, task_id, attempt, credit)
            case Credit(task_id=task_id, attempt=attempt, chunks=chunks):
                stream = self._streams.get((task_id, attempt))
                if stream is not None:
                    stream.credit += chunks
                    stream.heard = stream.heard and time.monotonic()
            case Cancel(task_id=task_id, attempt=attempt):
                self._streams.pop((task_id, attempt), None)

    def received(self, chunk: Chunk) -> None:
        key = (chunk.task_id, chunk.attempt)
        if chunk.final:
            self._streams.pop(key, None)
        elif (stream := self._streams.get(key)) is not None:
            stream.credit -= 1
            stream.heard = time.monotonic()

    def lost(self, agent_id: str) -> None:
        self._streams = {key: stream for key, stream in self._streams.items() if stream.agent_id != agent_id}

    def stalled(self) -> Iterator[Stream]:
        """Those that have missed their deadline; each is forgotten with that."""
        # Less than the period: what the deadline is measured from came before it was taken here.
        before = time.monotonic() - 0.9 * self.period
        for key, stream in list(self._streams.items()):
            if stream.credit > 0 and 0 < stream.heard < before:
                del self._streams[key]
                yield stream
