"""What listening and connecting sockets have in common: a socket behind wires, and its monitor.

Both watch ZeroMQ's own events, so that the end of a connection (a killed process, a network that is away) is reported
at once and not guessed from silence.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from anywire.transport_tools import OnceLog, encoded_limit
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.faults import mapped
from anywire_zeromq.loop_socket import NOBLOCK, LoopSocket
from anywire_zeromq.wire import RECEIVE_QUEUE, SEND_QUEUE, Wire, WireSink

log = logging.getLogger(__name__)

HANDSHAKE_MS = 5000

FAILED = {
    int(zmq.Event.HANDSHAKE_FAILED_AUTH),
    int(zmq.Event.HANDSHAKE_FAILED_PROTOCOL),
    int(zmq.Event.HANDSHAKE_FAILED_NO_DETAIL),
}
UNEXPLAINED = int(zmq.Event.HANDSHAKE_FAILED_NO_DETAIL)
DISCONNECTED = int(zmq.Event.DISCONNECTED)
SUCCEEDED = int(zmq.Event.HANDSHAKE_SUCCEEDED)
RETRIED = int(zmq.Event.CONNECT_RETRIED)
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
    int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "one end uses CURVE keys or an identity, and the other neither",
}


def why_failed(event: int, value: int) -> str:
    """A failed handshake in words."""
    if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
        return f"the listening end does not admit this key (status {value}): add its public key to allowed_keys there"
    if event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
        return _PROTOCOL_FAULTS.get(value, f"ZMTP protocol error {value:#x}: something else speaks there")
    return (
        "the other end broke the handshake off: it uses no CURVE keys, or server_key is not its public key; "
        "its log says which"
    )


class Endpoint:
    """A socket with its monitor. ``timeout_ms`` is how long a connection stands whose peer's kernel acknowledges
    nothing. Nothing is reported before `start`."""

    def __init__(
        self, context: zmq.Context[Any], kind: int, config: ZeromqConfig, timeout_ms: int, sink: WireSink
    ) -> None:
        self.config, self.sink = config, sink
        self.closing = self.closed = False
        self.once = OnceLog(log)
        self._blocked: set[Wire] = set()
        try:
            socket = context.socket(kind)
        except zmq.ZMQError as error:
            raise mapped(error, "opening a ZeroMQ socket") from error
        socket.sndhwm, socket.rcvhwm = SEND_QUEUE, RECEIVE_QUEUE
        socket.maxmsgsize = encoded_limit(config.max_message_bytes)
        socket.handshake_ivl = HANDSHAKE_MS
        _watch_network(socket, timeout_ms)
        if any("[" in address for address in (*config.agent_addresses, *config.client_addresses)):
            socket.ipv6 = True
        self._zmq = socket
        self._monitor_zmq = socket.get_monitor_socket(_WATCHED)
        self._socket = LoopSocket(socket, self._receive, self._idle)
        self._monitor = LoopSocket(self._monitor_zmq, self._observe, self._observed)

    def start(self) -> None:
        """Begin to report; what has happened before is reported too."""
        self._monitor.start()
        self._socket.start()

    def wires(self) -> list[Wire]:
        raise NotImplementedError

    async def close(self, linger_ms: int) -> None:
        """Transmit what waits, and wait for the goodbyes of the peers that were said goodbye, for up to ``linger_ms``.

        Without the goodbye of a peer it is not known that it has read everything: a connection that is closed takes
        with it what its peer has not read yet.
        """
        self.closing = True
        parting = [asyncio.ensure_future(wire.parted()) for wire in self.wires() if wire.goodbye_sent]
        if parting:
            _, late = await asyncio.wait(parting, timeout=linger_ms / 1000)
            for each in late:
                each.cancel()
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


def _watch_network(socket: zmq.Socket[bytes], timeout_ms: int) -> None:
    """End a connection when the peer's kernel has acknowledged nothing for ``timeout_ms``, or has had no room for so
    long for what was sent.

    ZeroMQ's own pings would also end the connection of a process that is merely paused: it does not answer, but its
    kernel does.
    """
    seconds = max(1, timeout_ms // 4000)
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = seconds
    socket.tcp_keepalive_cnt = 3
    socket.tcp_maxrt = timeout_ms
