"""Which streams have stalled: what a hub tells its owner when DDS says that instances missed their deadline.

DDS raises the alarm, for each stream by itself because chunks are keyed by task; its status names only one of the
instances that missed. Which they are is seen here, from the time of the last chunk of each.

A stream that waits for credit is not stalled: its reader is slow, and not its agent. Nor is one that has not begun, for
its agent may need long for the first token. Time in which this process did not run does not count.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from anywire.lease import AwakeTime
from anywire.messages import Cancel, Chunk, Credit, TaskRequest

MOST = 65_536
"""Streams watched at a time; of more the oldest are left to the pipeline's own timeouts."""


class Stream(msgspec.Struct, eq=False):
    """A stream under way; ``heard`` is when it last made progress, None before its first token."""

    agent_id: str
    incarnation: int
    task_id: str
    attempt: int
    credit: int
    heard: float | None = None


class Streams:
    """The streams of one hub whose chunks must come within ``period`` seconds of each other."""

    def __init__(self, period: float, awake: AwakeTime) -> None:
        self.period = period
        self._awake = awake
        self._streams: dict[tuple[str, int], Stream] = {}

    def __len__(self) -> int:
        """Streams watched."""
        return len(self._streams)

    def sent(self, agent_id: str, incarnation: int, message: object) -> None:
        """Something was sent over this link."""
        match message:
            case TaskRequest(task_id=task_id, attempt=attempt, stream=True, credit=credit):
                self._streams[task_id, attempt] = Stream(agent_id, incarnation, task_id, attempt, credit)
                if len(self._streams) > MOST:
                    del self._streams[next(iter(self._streams))]
            case Credit(task_id=task_id, attempt=attempt, chunks=chunks):
                stream = self._streams.get((task_id, attempt))
                if stream is not None:
                    stream.credit += chunks
                    if stream.heard is not None:
                        stream.heard = self._awake.now()
            case Cancel(task_id=task_id, attempt=attempt):
                self._streams.pop((task_id, attempt), None)

    def received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        """A chunk came by this link."""
        stream = self._streams.get((chunk.task_id, chunk.attempt))
        if stream is None or (stream.agent_id, stream.incarnation) != (agent_id, incarnation):
            return
        if chunk.final:
            del self._streams[chunk.task_id, chunk.attempt]
        elif chunk.deltas or chunk.extra:  # one without says only that the attempt was accepted
            stream.credit -= 1
            stream.heard = self._awake.now()

    def lost(self, agent_id: str, incarnation: int) -> None:
        """This link is over."""
        link = (agent_id, incarnation)
        self._streams = {
            key: stream for key, stream in self._streams.items() if (stream.agent_id, stream.incarnation) != link
        }

    def take_stalled(self) -> Iterator[Stream]:
        """Those that have missed their deadline; each is given once."""
        # Less than the period: what the deadline is measured from came before it was taken here.
        before = self._awake.now() - 0.9 * self.period
        for key, stream in list(self._streams.items()):
            if stream.credit > 0 and stream.heard is not None and stream.heard < before:
                del self._streams[key]
                yield stream
