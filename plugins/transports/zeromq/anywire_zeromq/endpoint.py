"""The two kinds of sockets behind wires: one that listens for many peers, and one per address that connects.

Both watch ZeroMQ's own events, so that the end of a connection (a killed process, a peer that no longer answers
ZeroMQ's pings) is told at once and not guessed from silence.
"""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from anywire.errors import TransportUnavailable
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.curve import secure_dialer, secure_listener
from anywire_zeromq.faults import mapped
from anywire_zeromq.loop_socket import NOBLOCK, LoopSocket
from anywire_zeromq.wire import QUEUE, DealerWire, RouterWire, Wire, WireSink

log = logging.getLogger(__name__)

RECONNECT_MS, RECONNECT_MAX_MS = 50, 1000
"""First and longest pause between attempts to reach an absent peer; ZeroMQ doubles it."""

HANDSHAKE_MS = 5000
PINGS_PER_LEASE = 4
OVERHEAD = 1024
"""Bytes a hello may have whatever the limit is."""

_FAILED = {
    int(zmq.Event.HANDSHAKE_FAILED_AUTH),
    int(zmq.Event.HANDSHAKE_FAILED_PROTOCOL),
    int(zmq.Event.HANDSHAKE_FAILED_NO_DETAIL),
}
_DISCONNECTED = int(zmq.Event.DISCONNECTED)
_SUCCEEDED = int(zmq.Event.HANDSHAKE_SUCCEEDED)
_RETRIED = int(zmq.Event.CONNECT_RETRIED)
_WATCHED = (
    zmq.Event.DISCONNECTED
    | zmq.Event.CONNECT_RETRIED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
)

_PROTOCOL_FAULTS = {
    int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "it took this end for another (its server_key is not our public key)",
    int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "one end uses CURVE keys and the other does not",
}


def why_failed(event: int, value: int) -> str:
    """A failed handshake in words."""
    if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
        return f"the listening end does not admit this key (status {value}): add its public key to allowed_keys there"
    if event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
        return _PROTOCOL_FAULTS.get(value, f"ZMTP protocol error {value:#x}: something else speaks there")
    return "the other end broke the handshake off; its log says why, or server_key is not its public key"


class Endpoint:
    """A socket with its monitor. ``timeout_ms`` is how long a peer may leave pings unanswered."""

    def __init__(
        self, context: zmq.Context[Any], kind: int, config: ZeromqConfig, timeout_ms: int, sink: WireSink
    ) -> None:
        self.config, self.sink = config, sink
        self.closed = False
        self._blocked: set[Wire] = set()
        self._told: set[str] = set()
        try:
            socket = context.socket(kind)
        except zmq.ZMQError as error:
            raise mapped(error, "opening a ZeroMQ socket") from error
        socket.set_hwm(QUEUE)
        socket.maxmsgsize = config.max_message_bytes + OVERHEAD
        socket.handshake_ivl = HANDSHAKE_MS
        socket.heartbeat_ivl = max(1, timeout_ms // PINGS_PER_LEASE)
        socket.heartbeat_timeout = max(1, timeout_ms - timeout_ms // PINGS_PER_LEASE)
        # What the peer's kernel does not acknowledge for so long goes with its connection. Otherwise it is delivered
        # when a network is back, after this end has connected anew: an agent seems to return by a connection that ends.
        socket.tcp_maxrt = socket.heartbeat_timeout
        socket.tcp_keepalive = 1
        if any("[" in address for address in (*config.agent_addresses, *config.client_addresses)):
            socket.ipv6 = True
        self._zmq = socket
        self._monitor_zmq = socket.get_monitor_socket(_WATCHED)
        self._socket = LoopSocket(socket, self._receive, self._idle)
        self._monitor = LoopSocket(self._monitor_zmq, self._observe, self._observed)

    def wires(self) -> list[Wire]:
        raise NotImplementedError

    async def close(self, linger_ms: int) -> None:
        """Transmit what waits for up to ``linger_ms``; idempotent. No callback is made any more."""
        if self.closed:
            return
        self.closed = True
        waiting = [wire.drain(below=1) for wire in self._blocked]
        if waiting:
            await asyncio.wait([asyncio.ensure_future(each) for each in waiting], timeout=linger_ms / 1000)
        self.abort(linger_ms)

    def abort(self, linger_ms: int = 0) -> None:
        self.closed = True
        for wire in self.wires():
            wire.end()
        if not self._socket.closed:
            self._zmq.disable_monitor()
        self._monitor.close(0)
        self._socket.close(linger_ms)

    def _receive(self) -> None:
        raise NotImplementedError

    def _idle(self) -> bool:
        for wire in list(self._blocked):
            wire.flush()
        return bool(self._blocked)

    def _observe(self) -> None:
        event = parse_monitor_message(self._monitor_zmq.recv_multipart(NOBLOCK))
        if not self.closed:
            self._happened(int(event["event"]), int(event["value"]))

    def _happened(self, event: int, value: int) -> None:
        raise NotImplementedError

    def _observed(self) -> bool:
        return False

    def _warn_once(self, message: str) -> None:
        """What repeats with every attempt to connect is worth one line."""
        log.log(logging.DEBUG if message in self._told else logging.WARNING, "%s", message)
        self._told.add(message)


class Listener(Endpoint):
    """Binds the first free of ``addresses``. Raises `TransportUnavailable` when none is."""

    def __init__(
        self,
        context: zmq.Context[Any],
        config: ZeromqConfig,
        addresses: list[str],
        timeout_ms: int,
        sink: WireSink,
    ) -> None:
        super().__init__(context, zmq.ROUTER, config, timeout_ms, sink)
        self._by_identity: dict[bytes, RouterWire] = {}
        self._by_descriptor: dict[int, RouterWire] = {}
        self._ending: list[RouterWire] = []
        try:
            self._zmq.router_mandatory = True
            secure_listener(self._zmq, config)
            self.address = self._bind(addresses)
        except BaseException:
            self.abort()
            raise

    def wires(self) -> list[Wire]:
        return list(self._by_identity.values())

    def _bind(self, addresses: list[str]) -> str:
        reasons = []
        for address in addresses:
            if address.startswith("ipc://") and _answers(address.removeprefix("ipc://")):
                reasons.append(f"{address}: in use by another process")  # ZeroMQ would take it away from that one
                continue
            try:
                self._zmq.bind(address)
            except zmq.ZMQError as error:
                reasons.append(f"{address}: {mapped(error, 'cannot listen')}")
            else:
                return address
        raise TransportUnavailable(f"no address to listen on is free: {'; '.join(reasons)}. Name another one as well")

    def _receive(self) -> None:
        identity = self._zmq.recv(NOBLOCK)
        wire = self._by_identity.get(identity)
        if wire is None:
            frame = self._zmq.recv(NOBLOCK, copy=False)
            wire, data = self._new_wire(identity, frame), frame.bytes
        else:
            data = self._zmq.recv(NOBLOCK)
        while self._zmq.get(zmq.RCVMORE):
            self._zmq.recv(NOBLOCK)
            data = b""  # ours have one frame: whatever this is, it cannot be read
        if not self.closed:
            self.sink.received(wire, data)

    def _new_wire(self, identity: bytes, frame: zmq.Frame) -> RouterWire:
        # A descriptor is used again only after its old connection's end was put into the monitor.
        self._monitor.settle()
        descriptor = int(frame.get(zmq.SRCFD))
        peer = f"{frame.get('Peer-Address')} (fd {descriptor})"
        wire = RouterWire(peer, self._socket, self._blocked, identity, descriptor)
        self._end(self._by_descriptor.get(descriptor))
        self._by_identity[identity] = self._by_descriptor[descriptor] = wire
        return wire

    def _happened(self, event: int, value: int) -> None:
        if event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL:
            log.debug("a connection to %s went away before it had introduced itself", self.address)
        elif event in _FAILED:
            self._warn_once(f"a connection to {self.address} was not admitted: {why_failed(event, value)}")
        elif event == _DISCONNECTED:
            self._end(self._by_descriptor.get(value))

    def _observed(self) -> bool:
        if self._ending:
            self._socket.settle()
        return False

    def _end(self, wire: RouterWire | None) -> None:
        if wire is not None:
            del self._by_descriptor[wire.descriptor]
            self._ending.append(wire)

    def _idle(self) -> bool:
        # Only now has everything been received that these had sent.
        ending, self._ending = self._ending, []
        for wire in ending:
            del self._by_identity[wire.identity]
            wire.end()
            if not self.closed:
                self.sink.ended(wire, "its connection ended")
        return super()._idle()


class Dialer(Endpoint):
    """Connects to ``address``, again and again while nobody is there."""

    def __init__(
        self,
        context: zmq.Context[Any],
        config: ZeromqConfig,
        address: str,
        timeout_ms: int,
        sink: WireSink,
    ) -> None:
        super().__init__(context, zmq.DEALER, config, timeout_ms, sink)
        self.address = address
        self._wire: DealerWire | None = None
        self._redial: asyncio.TimerHandle | None = None
        self._pause_ms = RECONNECT_MS
        # Nothing is queued for a connection that does not exist, and what waited for a broken one goes with it: a
        # new connection begins with a hello.
        self._zmq.immediate = True
        self._zmq.reconnect_ivl = RECONNECT_MS
        self._zmq.reconnect_ivl_max = RECONNECT_MAX_MS
        try:
            secure_dialer(self._zmq, config)
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
        self._stop_redialling()
        super().abort(linger_ms)

    def _receive(self) -> None:
        data = self._zmq.recv(NOBLOCK)
        if self._wire is not None and not self.closed:
            self.sink.received(self._wire, data)

    def _happened(self, event: int, value: int) -> None:
        if event == _SUCCEEDED:
            self._stop_redialling()
            self._lose("its connection was replaced")
            self._told.clear()
            self._pause_ms = RECONNECT_MS
            self._wire = DealerWire(self.address, self._socket, self._blocked)
            self.sink.opened(self._wire)
        elif event == _DISCONNECTED:
            self._lose("its connection ended")
            # ZeroMQ connects again, and says so by an event, unless the peer broke the protocol or was refused. But
            # keys get corrected and the other end gets replaced: then this end does it.
            self._stop_redialling()
            self._pause_ms = min(2 * self._pause_ms, RECONNECT_MAX_MS)
            self._redial = asyncio.get_running_loop().call_later(self._pause_ms / 1000, self._dial_again)
        elif event == _RETRIED:
            self._stop_redialling()
        elif event in _FAILED:
            self._warn_once(f"{self.address} cannot be joined: {why_failed(event, value)}")

    def _stop_redialling(self) -> None:
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


def _answers(path: str) -> bool:
    """Whether somebody listens on a Unix socket."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
