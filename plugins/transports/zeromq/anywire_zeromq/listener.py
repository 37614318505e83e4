"""The socket that listens, for many peers."""

from __future__ import annotations

import logging
import socket as sockets
from typing import Any

import zmq

from anywire.transport import Plane
from anywire.transport_tools import listening_addresses, none_is_free, takes_any_port
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.curve import Curve, secure_listener
from anywire_zeromq.endpoint import DISCONNECTED, FAILED, Endpoint, why_failed
from anywire_zeromq.faults import mapped
from anywire_zeromq.loop_socket import NOBLOCK
from anywire_zeromq.wire import RouterWire, Wire, WireSink

log = logging.getLogger(__name__)


class Listener(Endpoint):
    """Binds the first free of the addresses of ``plane``. Raises `TransportUnavailable` when none is."""

    def __init__(
        self,
        context: zmq.Context[Any],
        config: ZeromqConfig,
        plane: Plane,
        timeout_ms: int,
        sink: WireSink,
        curve: Curve | None,
    ) -> None:
        super().__init__(context, zmq.ROUTER, config, timeout_ms, sink)
        self._curve = curve
        self._by_identity: dict[bytes, RouterWire] = {}
        self._by_descriptor: dict[int, RouterWire] = {}
        self._ending: list[RouterWire] = []
        try:
            self._zmq.router_mandatory = True
            secure_listener(self._zmq, curve)
            self.address = self._bind(plane)
        except BaseException:
            self.abort()
            raise

    def wires(self) -> list[Wire]:
        return list(self._by_identity.values())

    def _bind(self, plane: Plane) -> str:
        reasons = []
        for address in listening_addresses(self.config, plane):
            if address.startswith("ipc://") and _answers(address.removeprefix("ipc://")):
                reasons.append(f"{address}: in use by another process")  # ZeroMQ would take it away from that one
                continue
            try:
                self._zmq.bind(address)
            except zmq.ZMQError as error:
                reasons.append(f"{address}: {mapped(error, 'cannot listen')}")
            else:
                return self._zmq.last_endpoint.decode() if takes_any_port(address) else address
        raise none_is_free(reasons, "zeromq", plane)

    def _receive(self) -> None:
        # Read the whole message before judging any of it: what is left of one would be taken for the next.
        identity = self._zmq.recv(NOBLOCK)
        wire = self._by_identity.get(identity)
        if wire is not None:
            frames = self._zmq.recv_multipart(NOBLOCK) if self._zmq.get(zmq.RCVMORE) else []
        else:
            sources = self._zmq.recv_multipart(NOBLOCK, copy=False) if self._zmq.get(zmq.RCVMORE) else []
            wire = self._new_wire(identity, sources[0]) if sources else None
            frames = [source.bytes for source in sources]
        if wire is None:
            return
        for frame in frames:
            if self.closed or wire.refused:
                return
            self.sink.received(wire, frame)

    def _new_wire(self, identity: bytes, frame: zmq.Frame) -> RouterWire | None:
        try:
            address, descriptor = str(frame.get("Peer-Address")), int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            # ZMTP before version 3 does not say from which connection a message is, so its end could not be noticed.
            self._ignore("something that speaks an old version of ZMTP")
            return None
        if len(identity) != 5 or identity[0] != 0:
            # Otherwise a new connection could take the place of another one before the end of that one was seen.
            self._ignore(f"{address}, which has chosen its own routing id")
            return None
        # A descriptor is used again only after its old connection's end was put into the monitor.
        self._monitor.settle()
        wire = RouterWire(address, self._socket, self._blocked, self.config.buffer_bytes, identity, descriptor)
        if self._curve is not None:
            key = str(frame.get("User-Id"))  # of `KeyCheck`
            wire.link_key = self._curve.link_key_of(key)
            if self._curve.allowed is not None:
                wire.key = key
        self._end(self._by_descriptor.get(descriptor))
        self._by_identity[identity] = self._by_descriptor[descriptor] = wire
        return wire

    def _ignore(self, peer: str) -> None:
        self.once.warn(("ignored", peer), "a connection to %s is ignored: from %s", self.address, peer)

    def _happened(self, event: int, value: int) -> None:
        if event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL:
            log.debug("a connection to %s went away before it had introduced itself", self.address)
        elif event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            log.debug("a connection to %s was not admitted for its key", self.address)  # `KeyCheck` warns
        elif event in FAILED:
            why = why_failed(event, value)
            self.once.warn((event, value), "a connection to %s was not admitted: %s", self.address, why)
        elif event == DISCONNECTED:
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


def _answers(path: str) -> bool:
    """Whether a process listens on a Unix socket."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
