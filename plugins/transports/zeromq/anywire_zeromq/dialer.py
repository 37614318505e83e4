"""The socket that connects, one for each address."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from typing import Any

import zmq

from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.curve import Curve, secure_dialer
from anywire_zeromq.endpoint import DISCONNECTED, FAILED, RETRIED, SUCCEEDED, UNEXPLAINED, Endpoint, why_failed
from anywire_zeromq.faults import mapped
from anywire_zeromq.loop_socket import NOBLOCK
from anywire_zeromq.wire import DealerWire, Wire, WireSink

log = logging.getLogger(__name__)

RECONNECT_MS, RECONNECT_MAX_MS = 50, 1000
"""First and longest pause between attempts to reach an absent peer, or one that has refused; it doubles."""

CONNECT_MS = 2000
"""How long one attempt may take: the kernel would go on for minutes, with longer and longer pauses."""


class Dialer(Endpoint):
    """Connects to ``address``, again and again while nobody is there."""

    def __init__(
        self,
        context: zmq.Context[Any],
        config: ZeromqConfig,
        address: str,
        timeout_ms: int,
        sink: WireSink,
        curve: Curve | None,
    ) -> None:
        super().__init__(context, zmq.DEALER, config, timeout_ms, sink)
        self._link_key = curve.link_key if curve is not None else b""
        self.address = address
        self._wire: DealerWire | None = None
        self._opened_at = math.inf
        self._redial: asyncio.TimerHandle | None = None
        self._pause_ms = RECONNECT_MS
        # Nothing is queued for a connection that does not exist, and what waited for a broken one goes with it: a
        # new connection begins with a hello.
        self._zmq.immediate = True
        self._zmq.reconnect_ivl = RECONNECT_MS
        self._zmq.reconnect_ivl_max = RECONNECT_MAX_MS
        self._zmq.connect_timeout = CONNECT_MS
        try:
            secure_dialer(self._zmq, curve)
            self._zmq.connect(address)
        except zmq.ZMQError as error:
            self.abort()
            raise mapped(error, f"connecting to {address}") from error
        except BaseException:
            self.abort()
            raise

    def wires(self) -> list[Wire]:
        return [] if self._wire is None else [self._wire]

    def abort(self, linger_ms: int = 0) -> None:
        self._cancel_redial()
        super().abort(linger_ms)

    def restart(self, wire: DealerWire) -> None:
        """Give up the connection ``wire`` and connect anew after a pause; what is sent now still leaves."""
        if wire is self._wire and not self.closing:
            self._wire = None
            wire.end()
            self._redial_later()

    def _receive(self) -> None:
        frames = self._zmq.recv_multipart(NOBLOCK)
        wire = self._wire
        if wire is None:
            return
        for frame in frames:
            if self.closed or wire is not self._wire or wire.refused:
                return
            self.sink.received(wire, frame)

    def _happened(self, event: int, value: int) -> None:
        if self.closing:
            if event == DISCONNECTED:
                self._lose("its connection ended")
        elif event == SUCCEEDED:
            self._cancel_redial()
            self._lose("its connection was replaced")
            self.once.reset()
            self._opened_at = asyncio.get_running_loop().time()
            self._wire = DealerWire(self.address, self._socket, self._blocked, self.config.buffer_bytes, self.restart)
            self._wire.link_key = self._link_key
            self.sink.opened(self._wire)
        elif event == DISCONNECTED:
            self._lose("its connection ended")
            # ZeroMQ connects again, and says so by an event, unless the peer broke the protocol or was refused. But
            # keys get corrected and the other end gets replaced: then this end does it.
            self._redial_later()
        elif event == RETRIED:
            self._cancel_redial()
        elif event in FAILED:
            why = why_failed(event, value)
            self.once.warn((event, value), "%s cannot be joined: %s", self.address, why)
            vague = event == UNEXPLAINED
            self.sink.unlinked.note(self.address, f"{self.address} cannot be joined: {why}", is_vague=vague)

    def _redial_later(self) -> None:
        self._cancel_redial()
        loop = asyncio.get_running_loop()
        if loop.time() - self._opened_at > 2 * RECONNECT_MAX_MS / 1000:
            self._pause_ms = RECONNECT_MS
        self._opened_at = math.inf
        pause = random.uniform(0.5, 1.0) * self._pause_ms / 1000  # those refused together do not return together
        self._pause_ms = min(2 * self._pause_ms, RECONNECT_MAX_MS)
        self._redial = loop.call_later(pause, self._dial_again)

    def _cancel_redial(self) -> None:
        if self._redial is not None:
            self._redial.cancel()
            self._redial = None

    def _lose(self, reason: str) -> None:
        self._socket.settle()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.end()
            if not self.closed:
                self.sink.ended(wire, reason)

    def _dial_again(self) -> None:
        self._monitor.settle()
        if self._redial is None:
            return
        self._redial = None
        try:
            self._zmq.disconnect(self.address)
        except zmq.ZMQError:
            log.debug("%s was given up by ZeroMQ already", self.address)
        self._zmq.connect(self.address)
