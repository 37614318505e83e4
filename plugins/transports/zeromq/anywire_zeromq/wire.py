"""One connected peer, as the hub's and the agent's end see it: whichever of the two listens."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Protocol

import zmq

from anywire.errors import AgentUnavailable
from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire.transport_tools import Unlinked, WriteRoom
from anywire_zeromq.faults import mapped
from anywire_zeromq.loop_socket import NOBLOCK, SNDMORE_NOBLOCK, LoopSocket

SEND_QUEUE = 2
"""ZeroMQ messages that ZeroMQ queues for one peer (its high-water mark). ZeroMQ counts messages and not bytes, so what
waits for a peer waits here, where it is counted, and ZeroMQ has only what it transmits next."""

RECEIVE_QUEUE = 8
"""ZeroMQ messages that ZeroMQ reads ahead from one peer. What is not read stays in the kernel and holds the sender."""

BATCH_BYTES = 64 * 1024
BATCH_FRAMES = 128
"""What has waited leaves in batches, each one ZeroMQ message of several frames, no larger than both."""


class Wire(ABC):
    """A connection that has not been seen to end, and what waits for its peer.

    ``agent``, ``status``, ``hub``, ``introduced``, ``refused``, ``spare`` and ``goodbye_sent`` belong to the end that
    uses it and hold how far the two have introduced themselves. ``address`` is the peer's for the log, the same
    for each of its connections; ``peer`` names this one. ``buffer_bytes`` is how much may wait. ``key`` is the peer's
    public key where it was checked, otherwise empty. ``link_key`` is that of `anywire.transport_tools.LinkProofs`.
    """

    key = ""
    link_key = b""

    def __init__(self, address: str, peer: str, socket: LoopSocket, blocked: set[Wire], buffer_bytes: int) -> None:
        self.address, self.peer = address, peer
        self.open = True
        self.agent: AgentInfo | None = None
        self.status: AgentStatus | None = None
        self.hub: HubInfo | None = None
        self.introduced = False
        self.refused = False
        self.spare = False
        self.goodbye_sent = False
        self._parted = asyncio.get_running_loop().create_future()
        self._socket = socket
        self._blocked = blocked  # the wires of this socket that have something waiting
        self._waiting: deque[list[bytes]] = deque()
        self._waiting_bytes = 0
        self._waiting_status: list[bytes] | None = None
        self._room = WriteRoom(buffer_bytes, peer)

    @abstractmethod
    def _post(self, frames: list[bytes]) -> None:
        """Give one ZeroMQ message to ZeroMQ; raises `zmq.Again` when its queue is full."""

    @abstractmethod
    def restart(self) -> None:
        """Give this connection up and make a new one after a pause, where this end has made it."""

    def send(self, data: bytes, *, bounded: bool = True) -> None:
        """Raises `Congested` if ``bounded``, or `AgentUnavailable` when the connection turns out to be gone."""
        if bounded:
            if self._waiting_bytes + len(data) > self._room.limit:
                self.flush()  # ZeroMQ may have transmitted since
            self._room.admit(len(data))
        if self._waiting or not self._try(data):
            self._append([data])

    def send_status(self, data: bytes) -> None:
        """Send the newest status; it replaces one that still waits. Raises like `send`, never `Congested`."""
        if self._waiting_status is not None:
            self._waiting_bytes += len(data) - len(self._waiting_status[0])
            self._waiting_status[0] = data
        elif self._waiting or not self._try(data):
            self._waiting_status = [data]
            self._append(self._waiting_status)

    def flush(self) -> None:
        """Give to ZeroMQ what waits, as far as it has room."""
        while self._waiting:
            frames = self._batch()
            try:
                self._post(frames)
            except zmq.Again:
                break
            except zmq.ZMQError:
                self.drop_waiting()  # gone: the end of the connection is about to be reported
                return
            for _ in frames:
                entry = self._waiting.popleft()
                self._waiting_bytes -= len(entry[0])
                if entry is self._waiting_status:
                    self._waiting_status = None
            self._socket.wake()
        self._count()

    async def drain(self) -> None:
        """Wait until the next bounded `send` is accepted, or what waits was dropped."""
        await self._room.drain()

    def part(self) -> None:
        """The peer has said goodbye: it has read all that was sent before ours, and sends nothing more."""
        if not self._parted.done():
            self._parted.set_result(None)

    async def parted(self) -> None:
        """Wait until `part` was called or the connection has ended."""
        await asyncio.shield(self._parted)

    def drop_waiting(self) -> None:
        """Drop what waits, because nobody would read it; who waits in `drain` goes on."""
        self._waiting.clear()
        self._waiting_bytes, self._waiting_status = 0, None
        self._room.close()
        self._room = WriteRoom(self._room.limit, self.peer)
        self._count()

    def end(self) -> None:
        """The connection has ended."""
        self.open = False
        self.drop_waiting()
        self.part()

    def _try(self, data: bytes) -> bool:
        if not self.open:
            raise AgentUnavailable(f"the connection to {self.peer} has ended")
        try:
            self._post([data])
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            raise mapped(error, f"sending to {self.peer}") from error
        self._socket.wake()
        return True

    def _append(self, entry: list[bytes]) -> None:
        self._waiting.append(entry)
        self._waiting_bytes += len(entry[0])
        self._blocked.add(self)
        self._room.set_waiting(self._waiting_bytes)
        self._socket.wake()

    def _batch(self) -> list[bytes]:
        frames: list[bytes] = []
        size = 0
        for entry in self._waiting:
            size += len(entry[0])
            if frames and (size > BATCH_BYTES or len(frames) == BATCH_FRAMES):
                break
            frames.append(entry[0])
        return frames

    def _count(self) -> None:
        self._room.set_waiting(self._waiting_bytes)
        if not self._waiting:
            self._blocked.discard(self)


class RouterWire(Wire):
    """A peer of a listening socket; ``identity`` is what ZeroMQ calls this connection."""

    def __init__(
        self,
        address: str,
        socket: LoopSocket,
        blocked: set[Wire],
        buffer_bytes: int,
        identity: bytes,
        descriptor: int,
    ) -> None:
        super().__init__(address, f"{address} (fd {descriptor})", socket, blocked, buffer_bytes)
        self.identity, self.descriptor = identity, descriptor

    def restart(self) -> None:
        """The peer has made this connection and makes the next one."""

    def _post(self, frames: list[bytes]) -> None:
        _post_all(self._socket.socket, [self.identity, *frames])


class DealerWire(Wire):
    """The peer of a connecting socket. ``restart`` is its `Dialer`'s."""

    def __init__(
        self,
        address: str,
        socket: LoopSocket,
        blocked: set[Wire],
        buffer_bytes: int,
        restart: Callable[[DealerWire], None],
    ) -> None:
        super().__init__(address, address, socket, blocked, buffer_bytes)
        self._restart = restart

    def restart(self) -> None:
        self._restart(self)

    def _post(self, frames: list[bytes]) -> None:
        _post_all(self._socket.socket, frames)


def _post_all(socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
    # Only the first may raise `zmq.Again`: ZeroMQ takes a whole message or none of it.
    for frame in frames[:-1]:
        socket.send(frame, SNDMORE_NOBLOCK)
    socket.send(frames[-1], NOBLOCK)


class WireSink(Protocol):
    """What the end that uses the connections is told."""

    unlinked: Unlinked

    def opened(self, wire: Wire) -> None:
        """A connection this end has dialled works; the listening end learns of one by its first message."""
        ...

    def received(self, wire: Wire, data: bytes) -> None: ...
    def ended(self, wire: Wire, reason: str) -> None:
        """The connection has ended. Everything the peer had sent was received before."""
        ...
