"""Both directions of a link: numbered fragments that are sent until they are acknowledged, and are put in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from anywire.errors import TransportError
from anywire.transport_tools.link_packets import DATA_HEAD, Data

FIRST_WINDOW = 64 * 1024
"""Bytes that may be under way at first. Each acknowledged byte adds one, each loss halves it."""

PACKET_COST = 512
"""Bytes by which a packet counts for more than its fragment: what an operating system keeps for a small one."""

MOST_FRAGMENTS = 4096
"""Fragments that may be under way, whatever their size."""

SHORTEST_TIMEOUT = 0.05
"""Seconds after which an unacknowledged fragment is sent again, at least."""

BURST = 8
"""Fragments that are sent again at once when nothing was acknowledged for too long."""


@dataclass(slots=True)
class _Sent:
    data: Data
    at: float
    again: bool = False


class Sender:
    """Cuts messages into fragments and keeps each fragment until it is acknowledged.

    ``packet_bytes`` is the largest packet, ``window_bytes`` is how much may be under way, ``longest`` is the longest
    time in seconds until a fragment is sent again. All times are seconds on the caller's scale.
    """

    def __init__(self, packet_bytes: int, window_bytes: int, longest: float) -> None:
        self.waiting = 0
        """Bytes of messages that are not acknowledged."""
        self.due: float | None = None
        """When `tick` has something to do, None while nothing is under way."""
        self._fragment_bytes = packet_bytes - DATA_HEAD
        self._most, self._longest = window_bytes, longest
        self._window = min(FIRST_WINDOW, window_bytes)
        self._queue: deque[bytes] = deque()
        self._offset = 0  # in the first message of the queue
        self._sent: deque[_Sent] = deque()
        self._under_way = 0  # bytes of _sent
        self._next = 0  # number of the next new fragment
        self._acked = 0  # number that the peer waits for
        self._repeats = 0  # times that it has said so again
        self._lost = 0  # fragments at the front of _sent to be sent again
        self._recovered = 0  # number that ends the repair of a loss
        self._round_trip = self._deviation = 0.0
        self._timeout = self._backed_off = longest / 2
        self._progress = 0.0

    @property
    def empty(self) -> bool:
        """Whether everything was acknowledged."""
        return not self._queue and not self._sent

    def put(self, message: bytes) -> None:
        self._queue.append(message)
        self.waiting += len(message)

    def acknowledged(self, number: int, now: float, *, answer: bool) -> None:
        """The peer waits for fragment ``number``; ``answer`` when it says so because a fragment came."""
        if self._acked < number <= self._next:
            self._repeats = 0
            self._progress = now
            self._forget(number, now)
            self._lost = max(self._lost - (number - self._acked), 1 if number < self._recovered else 0)
            self._acked = number
            self._backed_off = self._timeout
            self.due = now + self._timeout if self._sent else None
        elif number == self._acked and self._sent and answer:
            self._repeats += 1
            if self._repeats == 3 and self._recovered <= number:  # later ones have come and this one has not
                self._repair(1)

    def tick(self, now: float) -> None:
        """Prepare to send again what was under way for too long."""
        if self.due is not None and now >= self.due:
            self._backed_off = min(2 * self._backed_off, self._longest)
            self.due = now + self._backed_off
            self._repair(BURST)

    def stuck(self, now: float, seconds: float) -> bool:
        """Whether something is under way, and nothing was acknowledged for so long."""
        return bool(self._sent) and now - self._progress > seconds

    def fragments(self, now: float) -> Iterator[Data]:
        """What is to be sent now: what was lost, then as much as the window lets pass."""
        for index in range(min(self._lost, len(self._sent))):
            sent = self._sent[index]
            sent.at, sent.again = now, True
            yield sent.data
        self._lost = 0
        while self._queue and len(self._sent) < MOST_FRAGMENTS:
            if self._sent and self._under_way >= self._window:
                return
            yield self._cut(now)

    def _cut(self, now: float) -> Data:
        message = self._queue[0]
        fragment = message[self._offset : self._offset + self._fragment_bytes]
        self._offset += len(fragment)
        last = self._offset == len(message)
        if last:
            self._queue.popleft()
            self._offset = 0
        data = Data(self._next, last, fragment)
        if not self._sent:
            self._progress = now
            self.due = now + self._timeout
        self._next += 1
        self._sent.append(_Sent(data, now))
        self._under_way += len(fragment) + PACKET_COST
        return data

    def _forget(self, number: int, now: float) -> None:
        newest: _Sent | None = None
        while self._sent and self._sent[0].data.number < number:
            newest = self._sent.popleft()
            size = len(newest.data.fragment)
            self._under_way -= size + PACKET_COST
            self.waiting -= size
            self._window = min(self._most, self._window + size + PACKET_COST)
        if newest is not None and not newest.again:
            self._measured(now - newest.at)

    def _measured(self, round_trip: float) -> None:
        """The time-out after RFC 6298."""
        if not self._round_trip:
            self._round_trip, self._deviation = round_trip, round_trip / 2
        else:
            self._deviation += (abs(self._round_trip - round_trip) - self._deviation) / 4
            self._round_trip += (round_trip - self._round_trip) / 8
        self._timeout = min(max(self._round_trip + 4 * self._deviation, SHORTEST_TIMEOUT), self._longest)

    def _repair(self, count: int) -> None:
        self._window = max(self._window // 2, self._fragment_bytes + PACKET_COST)
        self._lost = max(self._lost, count)
        self._recovered = self._next
        self._repeats = 0


class Receiver:
    """Puts fragments in order and joins them. ``message_bytes`` is the largest message, ``window_bytes`` is how much of
    what comes too early is kept."""

    def __init__(self, message_bytes: int, window_bytes: int) -> None:
        self.awaits = 0
        """Number of the next fragment."""
        self._message_bytes, self._window_bytes = message_bytes, window_bytes
        self._early: dict[int, Data] = {}
        self._early_bytes = 0
        self._partial = bytearray()

    def in_order(self, data: Data) -> bool:
        """Whether ``data`` is what comes next, and nothing that comes after it waits here."""
        return data.number == self.awaits and not self._early

    def receive(self, data: Data) -> Iterator[bytes]:
        """The messages that ``data`` completes. What has come before is dropped, what comes too early is kept if there
        is room. Raises `TransportError` for a message that is too large, before it is kept."""
        if data.number != self.awaits:
            self._keep(data)
            return
        following: Data | None = data
        while following is not None:
            self.awaits += 1
            size = len(self._partial) + len(following.fragment)
            if size > self._message_bytes:
                raise TransportError(f"a message of {size} bytes or more, the limit is {self._message_bytes}")
            self._partial += following.fragment
            if following.last:
                message, self._partial = bytes(self._partial), bytearray()
                yield message
            following = self._early.pop(self.awaits, None)
            if following is not None:
                self._early_bytes -= len(following.fragment)

    def _keep(self, data: Data) -> None:
        size = self._early_bytes + len(data.fragment)
        ahead = data.number - self.awaits
        if 0 < ahead < MOST_FRAGMENTS and data.number not in self._early and size <= 2 * self._window_bytes:
            self._early[data.number] = data
            self._early_bytes = size
