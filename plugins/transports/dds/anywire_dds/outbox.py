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

from anywire.errors import AnywireError
from anywire.transport_tools import WriteRoom
from anywire_dds.writer import LARGE, Writer

WINDOW = 1024 * 1024
WINDOW_MESSAGES = 2048
"""Sent and not yet consumed: beyond, messages wait in the buffer. One message larger than the window is sent when
nothing is unconsumed."""

REPORT = WINDOW // 4
REPORT_MESSAGES = WINDOW_MESSAGES // 4
"""Consumed and not yet reported: beyond, the reader reports. Less than the window, so nobody waits for a report that
is not due."""

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
    counted: int
    """Its bytes while it waits; 0 for one that waits for its turn alone."""


class Outbox:
    """The write buffer to one peer.

    ``failed(task_id, attempt, error)`` is called for a message that was accepted and then refused by the library.
    ``limit`` is how many bytes may wait, by the rules of `anywire.transport_tools.WriteRoom`. None is for control
    messages: they are small, no window holds them back, and there are no more of them than attempts and chunks under
    way.
    """

    def __init__(
        self, writer: Writer, peer: str, failed: Callable[[str, int, AnywireError], None], limit: int | None
    ) -> None:
        self.writer = writer
        """The one of what keeps the link, and of messages that name no other."""
        self._peer, self._failed = peer, failed
        self._loop = asyncio.get_running_loop()
        self._room = WriteRoom(limit, peer) if limit is not None else None
        self._lanes: dict[int, deque[_Message]] = {}
        """What waits, by the priority of its writer, the highest first."""
        self._waiting_bytes = 0
        self._urgent: deque[tuple[Writer, Callable[[bytes], bool], bytes]] = deque()
        self._ahead: deque[int] = deque()
        self._ahead_bytes = 0
        self._consumed = 0
        self._stalled = self._closed = False
        self._apart: _Message | None = None
        """What a thread is writing now; everything else waits for that."""
        self._emptied: list[asyncio.Future[None]] = []

    @property
    def sent(self) -> int:
        """Messages written in this session."""
        return self._consumed + len(self._ahead)

    @property
    def ahead(self) -> int:
        """Messages written that the peer has not reported as consumed."""
        return len(self._ahead)

    @property
    def ahead_bytes(self) -> int:
        """Their bytes."""
        return self._ahead_bytes

    def send(
        self, sample: bytes, task_id: str, attempt: int, writer: Writer | None = None, ends: bytes | None = None
    ) -> None:
        """Write it or keep it. Raises `Congested`, or what the library's refusal is; then it is not kept. What a writer
        of higher priority writes overtakes what waits for lower ones. ``ends`` is the key of an instance that ends with
        this."""
        size = len(sample)
        waits_for_turn = size > LARGE and not self._lanes and self._is_open()
        message = _Message(sample, task_id, attempt, writer or self.writer, ends, 0 if waits_for_turn else size)
        if self._room is not None:
            self._room.admit(size)
        if waits_for_turn:
            self._loop.call_soon(self._flush)
        elif not self._lanes and self._write(message):
            return
        self._lane(message.writer.priority).append(message)
        self._set_waiting(self._waiting_bytes + message.counted)

    def send_now(self, sample: bytes, writer: Writer | None = None) -> None:
        """Send what keeps the link, ahead of every message and outside of the window."""
        writer = writer or self.writer
        self._at_once(writer, writer.write, sample)

    def send_hello(self, sample: bytes, writer: Writer | None = None) -> None:
        """Send a HELLO, as `send_now`."""
        writer = writer or self.writer
        self._at_once(writer, writer.write_hello, sample)

    def end_now(self, key: bytes, writer: Writer) -> None:
        """End an instance, ahead of what waits."""
        self._at_once(writer, writer.unregister, key)

    def consumed(self, count: int) -> None:
        """The peer has consumed ``count`` messages of this session."""
        while self._consumed < count and self._ahead:
            self._consumed += 1
            self._ahead_bytes -= self._ahead.popleft()
        self._flush()

    def discard(self, task_id: str, attempt: int) -> bool:
        """Remove a message that waits; False when there is none of this attempt."""
        for priority, lane in self._lanes.items():
            for place, message in enumerate(lane):
                if message.attempt == attempt and message.task_id == task_id and message is not self._apart:
                    del lane[place]
                    if not lane:
                        del self._lanes[priority]
                    self._set_waiting(self._waiting_bytes - message.counted)
                    return True
        return False

    async def drain(self) -> None:
        if self._room is not None:
            await self._room.drain()

    async def empty(self) -> None:
        """Wait until nothing waits any more."""
        while self._lanes and not self._closed:
            waiter = self._loop.create_future()
            self._emptied.append(waiter)
            await waiter

    def close(self) -> None:
        """Drop everything; whoever waits goes on."""
        self._closed = True
        self._lanes.clear()
        self._urgent.clear()
        self._set_waiting(0)
        if self._room is not None:
            self._room.close()

    def _lane(self, priority: int) -> deque[_Message]:
        if priority not in self._lanes:
            self._lanes[priority] = deque()
            self._lanes = dict(sorted(self._lanes.items(), reverse=True))
        return self._lanes[priority]

    def _set_waiting(self, size: int) -> None:
        self._waiting_bytes = size
        if self._room is not None:
            self._room.set_waiting(size)
        if not self._lanes:
            for waiter in self._emptied:
                if not waiter.done():
                    waiter.set_result(None)
            self._emptied.clear()

    def _is_open(self) -> bool:
        """Whether neither Cyclone nor the peer's window holds anything back."""
        if self._stalled:
            return False
        return self._room is None or (self._ahead_bytes < WINDOW and len(self._ahead) < WINDOW_MESSAGES)

    def _write(self, message: _Message) -> bool:
        if not self._is_open():
            return False
        if not message.writer.write(message.sample):
            self._stall(message.writer)
            return False
        self._account(message)
        self._end(message)
        return True

    def _account(self, message: _Message) -> None:
        if self._room is not None:
            size = len(message.sample)
            self._ahead.append(size)
            self._ahead_bytes += size

    def _end(self, message: _Message) -> None:
        if message.ends is not None:
            self._at_once(message.writer, message.writer.unregister, message.ends)

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
        for _ in range(BURST):
            if not self._lanes:
                return
            message = next(iter(self._lanes.values()))[0]
            if len(message.sample) > LARGE:
                if self._is_open():
                    self._stalled, self._apart = True, message
                    self._account(message)  # its reader may have consumed it before the thread is done
                    self._start("writes", self._write_apart, message)
                return
            error: AnywireError | None = None
            try:
                if not self._write(message):
                    return
            except AnywireError as refused:
                error = refused
            self._leaves(message, error)
        self._loop.call_soon(self._flush)

    def _leaves(self, message: _Message, error: AnywireError | None) -> None:
        """The first of its lane waits no longer: it is written, or refused with ``error``."""
        lane = self._lanes[message.writer.priority]
        lane.popleft()
        if not lane:
            del self._lanes[message.writer.priority]
        self._set_waiting(self._waiting_bytes - message.counted)
        if error is not None:
            self._failed(message.task_id, message.attempt, error)

    def _write_apart(self, message: _Message) -> None:
        """On a thread."""
        taken, error = False, None
        try:
            while not (taken := message.writer.write_apart(message.sample)):
                if not message.writer.wait_acknowledged(_ACKNOWLEDGED_WITHIN):
                    break
        except AnywireError as refused:
            error = refused
        self._tell(self._written_apart, message, taken, error)

    def _written_apart(self, message: _Message, taken: bool, error: AnywireError | None) -> None:
        self._stalled, self._apart = False, None
        if self._closed:
            return
        if taken:
            self._end(message)
        elif self._ahead:
            self._ahead_bytes -= self._ahead.pop()
        if taken or error is not None:
            self._leaves(message, error)
        self._flush()

    def _stall(self, writer: Writer) -> None:
        if not self._stalled:
            self._stalled = True
            self._start("acks", self._wait, writer)

    def _wait(self, writer: Writer) -> None:
        """On a thread."""
        writer.wait_acknowledged(_ACKNOWLEDGED_WITHIN)
        self._tell(self._acknowledged)

    def _start(self, what: str, work: Callable[..., None], *values: object) -> None:
        name = f"anywire-dds-{what}-{self._peer}"
        threading.Thread(target=work, args=values, name=name, daemon=True).start()

    def _tell(self, what: Callable[..., None], *values: object) -> None:
        """From a thread to the event loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what, *values)

    def _acknowledged(self) -> None:
        self._stalled = False
        if not self._closed:
            self._flush()
