"""Back-pressure of one peer: what may wait for it, and who waits for room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from anywire.errors import Congested
from anywire.messages import AgentStatus, Chunk, Command, CommandResult, Progress, TaskRequest
from anywire.transport import BUFFER_BYTES

MayCongest = TaskRequest | Chunk | Command | CommandResult | Progress
"""Messages that are admitted by `WriteRoom`; all others are small, and never raise `Congested`."""


class WriteRoom:
    """The rules of `anywire.transport`, *Back-pressure*, for one peer; it holds no message itself.

    ``limit`` is how many bytes may wait. The owner calls `admit` before it puts a message into its buffer, and
    `set_waiting` whenever the buffer has grown or shrunk. There is room when no more than an eighth of the limit waits
    (`low`). The first message of all, and the next one after `drain` has returned, are admitted whatever waits, so that
    one larger than the limit passes too, and the hellos of a new link are in nobody's way; what waits is therefore
    never more than the limit and one message. What is not in `MayCongest` is put into the buffer without `admit`.
    """

    def __init__(self, limit: int = BUFFER_BYTES, peer: str = "this peer") -> None:
        self.limit, self.peer = limit, peer
        self.waiting = 0
        """Bytes that wait now, as last told."""
        self.low = limit // 8
        """There is room when no more than this waits."""
        self.on_room: Callable[[], None] | None = None
        """Called each time that room is made, before those who `drain` go on; not by `close`."""
        self._granted = True
        self._closed = False
        self._drained: asyncio.Future[None] | None = None

    def admit(self, size: int) -> None:
        """Raises `Congested` when something waits and ``size`` bytes more would be over the limit."""
        granted, self._granted = self._granted, False
        if self.waiting and self.waiting + size > self.limit and not granted:
            raise Congested(
                f"{self.waiting} bytes wait for {self.peer} already, the limit is {self.limit} (buffer_bytes)"
            )

    def set_waiting(self, size: int) -> None:
        """So many bytes wait now."""
        made = size <= self.low < self.waiting
        self.waiting = size
        if made and not self._closed:
            if self.on_room is not None:
                self.on_room()
            self._wake()

    @property
    def has_room(self) -> bool:
        return self.waiting <= self.low

    async def drain(self) -> None:
        """Wait until there is room, see the class, or until `close`."""
        while self.waiting > self.low and not self._closed:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)
        self._granted = True

    def close(self) -> None:
        """The peer is gone: nobody waits any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


class NewestStatus:
    """Sends the newest status as soon as there is room, and leaves older ones out.

    ``send`` puts a status into the buffer of ``room``. This object takes `WriteRoom.on_room`.
    """

    def __init__(self, room: WriteRoom, send: Callable[[AgentStatus], None]) -> None:
        self._room, self._send = room, send
        self._late: AgentStatus | None = None
        room.on_room = self._send_late

    def put(self, status: AgentStatus) -> None:
        """Send it now, or when there is room unless a newer one has taken its place."""
        if self._room.has_room:
            self._send(status)
        else:
            self._late = status

    def _send_late(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            self._send(late)
