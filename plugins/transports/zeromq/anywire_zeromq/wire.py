"""One connected peer, as the hub's and the agent's end see it: whichever of the two listens."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Protocol

import zmq

from anywire.errors import Congested
from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire_zeromq.faults import mapped
from anywire_zeromq.loop_socket import NOBLOCK, SNDMORE_NOBLOCK, LoopSocket

QUEUE = 1000
"""Messages ZeroMQ itself queues per peer and direction (its high-water mark). A link carries at most a task per slot
and a credit window per stream, so this is reached only by a peer that has stopped reading; being counted in
messages, it bounds memory only together with ``max_message_bytes``."""

LOW_WATER = 256
HARD_BOUND = 4096
"""Messages kept here, per peer, once ZeroMQ's queue is full."""


class Wire(ABC):
    """A connection that has not been seen to end. ``agent``, ``status``, ``hub``, ``joined``,
    ``greeted`` and ``refused`` belong to the end that uses it and hold how far the two have introduced themselves."""

    def __init__(self, peer: str, socket: LoopSocket, blocked: set[Wire]) -> None:
        self.peer = peer
        self.open = True
        self.agent: AgentInfo | None = None
        self.status: AgentStatus | None = None
        self.hub: HubInfo | None = None
        self.joined = False
        self.greeted = False
        self.refused = False
        self._socket = socket
        self._blocked = blocked  # the wires of this socket that have something waiting
        self._waiting: deque[bytes] = deque()
        self._room: list[asyncio.Future[None]] = []

    @abstractmethod
    def _post(self, data: bytes) -> None:
        """Give to ZeroMQ; raises `zmq.Again` when its queue is full."""

    def send(self, data: bytes, *, bounded: bool = True) -> None:
        """Raises `Congested`, or `AgentUnavailable` when the connection turns out to be gone."""
        if not self._waiting:
            try:
                self._post(data)
            except zmq.Again:
                pass
            except zmq.ZMQError as error:
                raise mapped(error, f"sending to {self.peer}") from error
            else:
                self._socket.wake()
                return
        elif bounded and len(self._waiting) >= HARD_BOUND:
            raise Congested(f"{len(self._waiting) + QUEUE} messages wait for {self.peer} already")
        self._waiting.append(data)
        self._blocked.add(self)
        self._socket.wake()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        sent = False
        while self._waiting:
            try:
                self._post(self._waiting[0])
            except zmq.Again:
                break
            except zmq.ZMQError:
                self._waiting.clear()  # gone: the end of the connection is about to be told
                break
            self._waiting.popleft()
            sent = True
        if sent:
            self._socket.wake()
        if not self._waiting:
            self._blocked.discard(self)
        if len(self._waiting) < LOW_WATER:
            self._make_room()

    async def drain(self, below: int = LOW_WATER) -> None:
        """Wait until fewer than ``below`` messages wait here, or the connection ended."""
        while self.open and len(self._waiting) >= below:
            room = asyncio.get_running_loop().create_future()
            self._room.append(room)
            await room

    def end(self) -> None:
        self.open = False
        self._waiting.clear()
        self._blocked.discard(self)
        self._make_room()

    def _make_room(self) -> None:
        for room in self._room:
            if not room.done():
                room.set_result(None)
        self._room.clear()


class RouterWire(Wire):
    """A peer of a listening socket; ``identity`` is what ZeroMQ calls this connection."""

    def __init__(self, peer: str, socket: LoopSocket, blocked: set[Wire], identity: bytes, descriptor: int) -> None:
        super().__init__(peer, socket, blocked)
        self.identity, self.descriptor = identity, descriptor

    def _post(self, data: bytes) -> None:
        self._socket.socket.send(self.identity, SNDMORE_NOBLOCK)
        self._socket.socket.send(data, NOBLOCK)


class DealerWire(Wire):
    """The peer of a connecting socket."""

    def _post(self, data: bytes) -> None:
        self._socket.socket.send(data, NOBLOCK)


class WireSink(Protocol):
    """What the end that uses the connections is told."""

    def opened(self, wire: Wire) -> None:
        """A connection this end has dialled works; the listening end learns of one by its first message."""
        ...

    def received(self, wire: Wire, data: bytes) -> None: ...
    def ended(self, wire: Wire, reason: str) -> None:
        """Everything the peer had sent was received before."""
        ...
