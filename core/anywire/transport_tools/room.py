"""Back-pressure of one peer: what may wait for it, and who waits for room."""

from __future__ import annotations

import asyncio

from anywire.errors import Congested
from anywire.transport import BUFFER_BYTES


class WriteRoom:
    """The rules of `anywire.transport`, *Back-pressure*, for one peer; it holds no message itself.

    ``limit`` is how many bytes may wait. The owner calls `admit` before it puts a message into its buffer, and
    `set_waiting` whenever the buffer has grown or shrunk. Room is made when no more than an eighth of the limit waits; after `drain`
    has returned, the next message is admitted whatever waits, so that one larger than the limit passes too.
    """

    def __init__(self, limit: int = BUFFER_BYTES, peer: str = "this peer") -> None:
        self.limit, self.peer = limit, peer
        self.waiting = 0
        """Bytes that wait now, as last told."""
        self._low = limit // 8
        self._granted = False
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
        self.waiting = size
        if size <= self._low:
            self._wake()

    async def drain(self) -> None:
        """Wait until there is room, see the class, or until `close`."""
        while self.waiting > self._low and not self._closed:
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
