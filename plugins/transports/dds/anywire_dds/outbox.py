"""What is on its way to one peer: the bounded write buffer between `send`, which never waits, and a DDS writer.

Two things can hold a message back. The peer's window: it tells how many messages of the session it has consumed, and
no more than `WINDOW` bytes are sent ahead of that, so that neither the peer's reader cache nor the writer's history
grows. And Cyclone itself, when too much is unacknowledged: a write then fails at once, and a thread that lives only
as long as that waits for the acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from anywire.errors import AnywireError, Congested
from anywire_dds.writer import Writer

WINDOW = 1024 * 1024
WINDOW_MESSAGES = 2048
"""Sent and not yet consumed: beyond, messages wait in the buffer."""

REPORT = WINDOW // 4
REPORT_MESSAGES = WINDOW_MESSAGES // 4
"""Consumed and not yet reported: beyond, the reader reports. Less than the window, so nobody waits for a report that
is not due."""

LOW_WATER = 256 * 1024
LOW_WATER_MESSAGES = 256
HARD_BOUND = 4 * 1024 * 1024
HARD_BOUND_MESSAGES = 4096
"""Of the buffer. A message larger than the bound enters an empty buffer."""

BURST = 128
"""Written in one turn of the event loop when a buffer empties; the next ones in the next turn."""

_ACKNOWLEDGED_WITHIN = 3600.0
"""Seconds; the thread ends sooner, with the acknowledgement or with the writer."""


class _Message(NamedTuple):
    sample: bytes
    task_id: str
    attempt: int
    writer: Writer
    ends: bytes | None


class Outbox:
    """The write buffer to one peer. ``failed(task_id, attempt, error)`` is called for a message that was accepted and
    then refused by the library."""

    def __init__(
        self, writer: Writer, peer: str, failed: Callable[[str, int, AnywireError], None], *, bounded: bool = True
    ) -> None:
        self.writer = writer
        """The one of what keeps the link, and of messages that name no other."""
        self._peer, self._failed, self._bounded = peer, failed, bounded
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Message] = deque()
        self._waiting_bytes = 0
        self._urgent: deque[tuple[Writer, Callable[[bytes], bool], bytes]] = deque()
        self._ahead: deque[int] = deque()
        self._ahead_bytes = 0
        self._consumed = 0
        self._stalled = self._closed = False
        self._drainers: list[asyncio.Future[None]] = []

    @property
    def sent(self) -> int:
        """Messages written in this session."""
        return self._consumed + len(self._ahead)

    @property
    def ahead(self) -> int:
        """Messages written that the peer has not reported as consumed."""
        return len(self._ahead)

    def send(
        self, sample: bytes, task_id: str, attempt: int, writer: Writer | None = None, ends: bytes | None = None
    ) -> None:
        """Write it or keep it. Raises `Congested`, or what the library's refusal is; then it is not kept. What a writer
        of higher priority writes overtakes what waits for lower ones. ``ends`` is the key of an instance that ends with
        this; ``sample`` may be empty then."""
        writer = writer or self.writer
        if not self._waiting and self._write(sample, writer, ends):
            return
        if (
            self._bounded
            and self._waiting
            and (self._waiting_bytes + len(sample) > HARD_BOUND or len(self._waiting) >= HARD_BOUND_MESSAGES)
        ):
            raise Congested(
                f"{len(self._waiting)} messages ({self._waiting_bytes} bytes) already wait for {self._peer}",
                task_id=task_id,
            )
        place = len(self._waiting)
        while place and self._waiting[place - 1].writer.priority < writer.priority:
            place -= 1
        self._waiting.insert(place, _Message(sample, task_id, attempt, writer, ends))
        self._waiting_bytes += len(sample)

    def send_now(self, sample: bytes, writer: Writer | None = None) -> None:
        """Send what keeps the link, ahead of every message and outside of the window."""
        writer = writer or self.writer
        self._at_once(writer, writer.write, sample)

    def end_now(self, key: bytes, writer: Writer) -> None:
        """End an instance, ahead of what waits."""
        self._at_once(writer, writer.unregister, key)

    def consumed(self, count: int) -> None:
        """The peer has consumed ``count`` messages of this session."""
        while self._consumed < count and self._ahead:
            self._consumed += 1
            self._ahead_bytes -= self._ahead.popleft()
        self._flush()

    async def drain(self) -> None:
        while not self._low():
            await self._below()

    async def empty(self) -> None:
        """Wait until nothing waits any more."""
        while self._waiting and not self._closed:
            await self._below()

    def close(self) -> None:
        """Forget everything; whoever drains goes on."""
        self._closed = True
        self._waiting.clear()
        self._urgent.clear()
        self._waiting_bytes = 0
        self._wake()

    def _write(self, sample: bytes, writer: Writer, ends: bytes | None) -> bool:
        ahead, bounded = self._ahead, self._bounded
        if self._stalled or (bounded and (self._ahead_bytes >= WINDOW or len(ahead) >= WINDOW_MESSAGES)):
            return False
        if sample:
            if not writer.write(sample):
                self._stall(writer)
                return False
            if bounded:
                size = len(sample)
                ahead.append(size)
                self._ahead_bytes += size
        if ends is not None:
            self._at_once(writer, writer.unregister, ends)
        return True

    def _at_once(self, writer: Writer, write: Callable[[bytes], bool], data: bytes) -> None:
        if self._stalled or not write(data):
            self._urgent.append((writer, write, data))
            self._stall(writer)

    def _flush(self) -> None:
        while self._urgent and not self._stalled:
            writer, write, data = self._urgent[0]
            if not write(data):
                self._stall(writer)
                return
            self._urgent.popleft()
        for _ in range(min(len(self._waiting), BURST)):
            message = self._waiting[0]
            try:
                if not self._write(message.sample, message.writer, message.ends):
                    break
            except AnywireError as error:
                self._failed(message.task_id, message.attempt, error)
                if self._closed:
                    return
            self._waiting.popleft()
            self._waiting_bytes -= len(message.sample)
        else:
            if self._waiting:
                self._loop.call_soon(self._flush)
        if self._low():
            self._wake()

    def _low(self) -> bool:
        return self._waiting_bytes <= LOW_WATER and len(self._waiting) <= LOW_WATER_MESSAGES

    def _stall(self, writer: Writer) -> None:
        if not self._stalled:
            self._stalled = True
            name = f"anywire-dds-acks-{self._peer}"
            threading.Thread(target=self._wait, args=(writer,), name=name, daemon=True).start()

    def _wait(self, writer: Writer) -> None:
        writer.wait_acknowledged(_ACKNOWLEDGED_WITHIN)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._acknowledged)

    def _acknowledged(self) -> None:
        self._stalled = False
        if not self._closed:
            self._flush()

    async def _below(self) -> None:
        drainer = self._loop.create_future()
        self._drainers.append(drainer)
        await drainer

    def _wake(self) -> None:
        for drainer in self._drainers:
            if not drainer.done():
                drainer.set_result(None)
        self._drainers.clear()
