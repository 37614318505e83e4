"""A ZeroMQ socket driven by the event loop, without a thread or task of its own.

The socket's file descriptor is edge-triggered: it becomes readable once when something happened, and any call on the
socket may take that edge away. Three rules follow, and live here. A wake-up receives until nothing is left. After
sending, the state is asked for again, once per turn of the loop. While a peer's queue is full, a timer asks too,
because the edge that tells of room may be taken by a call for another peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import zmq

log = logging.getLogger(__name__)

# Plain integers: combining pyzmq's enum members costs more than sending a small message.
NOBLOCK = int(zmq.NOBLOCK)
SNDMORE_NOBLOCK = int(zmq.SNDMORE) | NOBLOCK
POLLIN = int(zmq.POLLIN)

TURN = 256
"""Messages received before other work of the event loop gets its turn."""

BLOCKED_CHECK, BLOCKED_CHECK_MAX = 0.005, 0.05
"""Seconds until the first look for room in a full queue, besides ZeroMQ's own wake-up, and the longest pause between
two looks; it doubles while nothing is heard from ZeroMQ."""


class LoopSocket:
    """``receive`` takes one message and raises `zmq.Again` when there is none; ``idle`` is called when all have been
    taken, and returns whether some peer's queue is still full. Nothing is called before `start`."""

    def __init__(self, socket: zmq.Socket[bytes], receive: Callable[[], None], idle: Callable[[], bool]) -> None:
        self.socket = socket
        self.closed = False
        self._receive, self._idle = receive, idle
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(socket.get(zmq.FD))
        self._started = False
        self._receiving = False
        self._woken = False
        self._pause = BLOCKED_CHECK
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to receive; what has come before is received too."""
        if not self.closed and not self._started:
            self._started = True
            self._loop.add_reader(self._descriptor, self._readable)
            self.wake()

    def wake(self) -> None:
        """Look at the socket in the next turn of the loop: to be called after every send."""
        if self._started and not self._woken and not self._receiving and not self.closed:
            self._woken = True
            self._loop.call_soon(self._look)

    def settle(self) -> None:
        """Receive all that is there now, then be idle."""
        if self._started and not self._receiving and not self.closed:
            self._take(None)

    def close(self, linger_ms: int) -> None:
        """Stop at once; what was sent is still transmitted for up to ``linger_ms``."""
        if self.closed:
            return
        self.closed = True
        if self._started:
            self._loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
        self.socket.close(linger_ms)

    def _readable(self) -> None:
        self._pause = BLOCKED_CHECK
        self._take(TURN)

    def _look(self) -> None:
        self._woken = False
        if self.closed:
            return
        if int(self.socket.get(zmq.EVENTS)) & POLLIN:
            self._take(TURN)
        else:
            self._rest()

    def _take(self, limit: int | None) -> None:
        self._receiving = True
        taken = 0
        try:
            while not self.closed and (limit is None or taken < limit):
                taken += 1
                try:
                    self._receive()
                except zmq.Again:
                    break
                except Exception:
                    log.exception("a message could not be handled")
            else:
                if not self.closed:
                    self._loop.call_soon(self._again)
                return
        finally:
            self._receiving = False
        self._rest()

    def _again(self) -> None:
        if not self.closed:
            self._take(TURN)

    def _rest(self) -> None:
        full = not self.closed and self._idle()
        if full and self._timer is None and not self.closed:
            self._timer = self._loop.call_later(self._pause, self._look_for_room)
            self._pause = min(2 * self._pause, BLOCKED_CHECK_MAX)

    def _look_for_room(self) -> None:
        self._timer = None
        self._look()
