"""What a hub and an agent's port have in common: one end of a plane, with its sockets and its way to close.

Orchestrators listen on both planes, because they are what others look for: on the agent plane that is the hub, on
the client plane the agent. In ZeroMQ who binds has nothing to do with who sends tasks, so both ends use either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from anywire.errors import AnywireError, PayloadTooLarge, TransportUnavailable
from anywire.transport import Plane
from anywire_zeromq.codec import PROTOCOL, Farewell, Message, decode, encode
from anywire_zeromq.config import ZeromqConfig, is_local, is_wildcard
from anywire_zeromq.curve import KeyCheck
from anywire_zeromq.endpoint import Dialer, Endpoint, Listener
from anywire_zeromq.faults import mapped
from anywire_zeromq.wire import Wire

log = logging.getLogger(__name__)

LINGER_MS = 1000
"""How long what was accepted may take to leave when an end closes."""


class End:
    """`open` it as listener or dialer; subclasses say what messages mean."""

    def __init__(self, config: ZeromqConfig, plane: Plane, me: str) -> None:
        self.config, self.plane, self.me = config, plane, me
        self.closed = False
        self.limit = config.max_message_bytes
        self._addresses = config.agent_addresses if plane == "agent" else config.client_addresses
        self._context: zmq.Context[Any] = zmq.Context()
        self._endpoints: list[Endpoint] = []
        self._key_check: KeyCheck | None = None
        self._meanings: dict[type[Message], Callable[[Wire, Any], None]] = {}

    def silence_ms(self) -> int:
        """How long a peer may leave ZeroMQ's pings unanswered before its connection is given up."""
        raise NotImplementedError

    def listen(self) -> str:
        """Bind the first free address and return it; raises `TransportUnavailable`."""
        config = self.config
        if config.secret_key is not None:
            self._key_check = KeyCheck(self._context, config.allowed_keys)
        listener = Listener(self._context, config, self._addresses, self.silence_ms(), self)
        self._endpoints.append(listener)
        log.info("%s listens on %s for the %s plane", self.me, listener.address, self.plane)
        if config.secret_key is None and not is_local(listener.address):
            log.warning("%s is open to the network and not secured: set secret_key and allowed_keys", listener.address)
        return listener.address

    def dial(self) -> None:
        """Connect to every address, be somebody there or not; raises `TransportUnavailable`."""
        for address in self._addresses:
            if is_wildcard(address):
                raise TransportUnavailable(
                    f"{address} can be listened on but not connected to: name the host of the orchestrator instead"
                )
            dialer = Dialer(self._context, self.config, address, self.silence_ms(), self)
            self._endpoints.append(dialer)

    async def shut(self, farewell: str) -> None:
        """Tell the peers, transmit what waits for a bounded time, release everything; idempotent."""
        if self.closed:
            return
        self.closed = True
        goodbye = Farewell(farewell)
        for endpoint in self._endpoints:
            for wire in endpoint.wires():
                if wire.agent is not None or wire.hub is not None:
                    self.tell(wire, goodbye)
        await asyncio.gather(*(endpoint.close(LINGER_MS) for endpoint in self._endpoints))
        await self._release()

    async def abandon(self) -> None:
        """Release everything after a failure to open."""
        self.closed = True
        for endpoint in self._endpoints:
            endpoint.abort()
        await self._release()

    async def _release(self) -> None:
        if self._key_check is not None:
            self._key_check.close()
        # It waits until everything is transmitted or has lingered: not a wait for the event loop.
        await asyncio.get_running_loop().run_in_executor(None, self._context.term)

    def encode(self, message: Message) -> bytes:
        """Raises `PayloadTooLarge`."""
        data = encode(message)
        if len(data) > self.limit:
            raise PayloadTooLarge(
                f"the message has {len(data)} bytes, the limit is {self.limit}: raise max_message_bytes at both ends"
            )
        return data

    def tell(self, wire: Wire, message: Message) -> None:
        """Send one of the transport's own messages; a peer that is gone is reported another way."""
        try:
            wire.send(encode(message), bounded=False)
        except AnywireError as error:
            log.debug("%s", error)

    # As a WireSink

    def opened(self, wire: Wire) -> None:
        raise NotImplementedError

    def ended(self, wire: Wire, reason: str) -> None:
        raise NotImplementedError

    def received(self, wire: Wire, data: bytes) -> None:
        if wire.refused:
            return
        try:
            message = decode(data)
            meaning = self._meanings.get(type(message))
            if meaning is None:
                raise msgspec.DecodeError(f"{type(message).__name__} is not for this end")
        except msgspec.MsgspecError as error:
            reason = str(mapped(error, "it sent something unreadable"))
            self.refuse(wire, reason)
            self.ended(wire, reason)
        else:
            meaning(wire, message)

    # For subclasses

    def refuse(self, wire: Wire, reason: str) -> None:
        """Say so once to each: a stranger may go on sending."""
        if not wire.refused:
            wire.refused = True
            log.warning("%s is not linked to %s: %s", wire.peer, self.me, reason)
            self.tell(wire, Farewell(reason))

    def mismatch(self, protocol: str, plane: Plane) -> str:
        """Why a peer that introduces itself so cannot be talked to; empty when it can."""
        if protocol != PROTOCOL:
            return f"it speaks {protocol}, this end {PROTOCOL}: use one version of anywire-zeromq everywhere"
        if plane != self.plane:
            return f"this is the {self.plane} plane, it looks for the {plane} plane: check the addresses"
        return ""
