"""One connection between two ends: frames, a bounded write buffer, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol, cast

from anywire.errors import Congested, TransportError
from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire_unix.wire import Unpacker, pack

log = logging.getLogger(__name__)

LOW_WATER = 64 * 1024
HARD_BOUND = 4 * 1024 * 1024
"""Bytes that may wait for one peer; a single message that is larger passes when nothing waits."""


class Owner(Protocol):
    """The end a connection belongs to."""

    def opened(self, connection: Connection) -> None: ...
    def received(self, connection: Connection, message: Any) -> None:
        """Raises `TransportError` for a message that makes no sense: the peer is then cut off."""
        ...

    def ended(self, connection: Connection, reason: str) -> None: ...


class Connection(asyncio.Protocol):
    """Also the `Reply` of every task that came over it. ``agent`` or ``hub`` is the peer, once it has told its name."""

    def __init__(self, owner: Owner, limit: int) -> None:
        self.agent: AgentInfo | None = None
        self.hub: HubInfo | None = None
        self.closed = asyncio.get_running_loop().create_future()
        """Done when nothing of it is left."""
        self._owner, self._limit = owner, limit
        self._unpacker = Unpacker(limit)
        self._transport: asyncio.Transport | None = None
        self._over = False
        self._room: asyncio.Future[None] | None = None
        self._late: AgentStatus | None = None

    def send(self, message: Any, *, bounded: bool = True) -> None:
        """Raises `PayloadTooLarge` or `Congested`; dropped when the connection has ended."""
        frame = pack(message, self._limit)
        if self._transport is None or self._transport.is_closing():
            return
        waiting = self._transport.get_write_buffer_size()
        if bounded and waiting and waiting + len(frame) > HARD_BOUND:
            raise Congested(f"{waiting} bytes wait for this peer already, the bound is {HARD_BOUND}")
        self._transport.write(frame)

    def tell(self, message: Any) -> None:
        """Send what is this transport's own to send: a failure is logged, there is nobody to raise it to."""
        try:
            self.send(message, bounded=False)
        except TransportError as error:
            log.warning("not sent: %s", error)

    def report(self, status: AgentStatus) -> None:
        """Send a status, or keep it until there is room, unless a newer one takes its place."""
        if self._room is not None:
            self._late = status
            return
        self.tell(status)

    async def drain(self) -> None:
        """Wait until fewer than `LOW_WATER` bytes wait, or the connection has ended."""
        while self._room is not None:
            await asyncio.shield(self._room)

    def close(self) -> None:
        """End it once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass
        self._transport.set_write_buffer_limits(high=LOW_WATER, low=LOW_WATER)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        try:
            while not self._over and (message := self._unpacker.next()) is not None:
                self._owner.received(self, message)
        except TransportError as error:
            log.warning("a peer is cut off: %s", error)
            self._end(str(error))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc is not None else "the peer closed the connection")
        self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)
        late, self._late = self._late, None
        if late is not None:
            self.report(late)

    def _end(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._late = None
            self.resume_writing()
            self._owner.ended(self, reason)
