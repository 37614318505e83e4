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
from anywire.messages import AgentInfo, HubInfo
from anywire.printable import printable
from anywire.transport import Plane
from anywire.transport_tools import (
    AgentLinks,
    Guard,
    HubLinks,
    LinkProofs,
    LinkRefused,
    OnceLog,
    UnknownKind,
    Unlinked,
    check_payload,
    encoded_limit,
    takes_any_port,
)
from anywire_zeromq.codec import (
    PROTOCOL,
    AgentHello,
    Goodbye,
    HubHello,
    Message,
    check_unreadable,
    decode,
    encode,
    is_goodbye,
)
from anywire_zeromq.config import ZeromqConfig, is_local, is_wildcard
from anywire_zeromq.curve import KeyCheck, curve_of
from anywire_zeromq.dialer import Dialer
from anywire_zeromq.endpoint import Endpoint
from anywire_zeromq.faults import mapped
from anywire_zeromq.listener import Listener
from anywire_zeromq.wire import Wire

log = logging.getLogger(__name__)

LINGER_MS = 1000
"""How long what was accepted may take to leave when an end closes."""

HELLO_BYTES = encoded_limit(0)
"""Bytes that a message may have from somebody who has not introduced himself."""

TIMEOUT_LEASES = 4
"""Leases until a connection is given up whose peer's kernel acknowledges nothing. That an agent is silent the pipeline
notices after one; this only ends what a broken network has left."""


class End:
    """`open` it as listener or dialer; subclasses handle the messages.

    ``name`` is for the log, ``info`` is this end's own. ``guard`` stands in front of the sink. ``proofs`` are what it
    shows and asks of identities.
    """

    def __init__(
        self, config: ZeromqConfig, plane: Plane, name: str, info: HubInfo | AgentInfo, proofs: LinkProofs
    ) -> None:
        self.config, self.plane, self.name, self.proofs = config, plane, name, proofs
        self.curve = curve_of(config, needed=proofs.shows)
        self.guard = Guard()
        self.timeout_ms = TIMEOUT_LEASES * info.lease_ms
        self._own = info
        self.once = OnceLog(log)
        self.unlinked = Unlinked()
        self._addresses = config.agent_addresses if plane == "agent" else config.client_addresses
        self._context: zmq.Context[Any] = zmq.Context()
        self._endpoints: list[Endpoint] = []
        self._key_check: KeyCheck | None = None
        self._handlers: dict[type[Message], Callable[[Wire, Any], None]] = {}

    def listen(self) -> str:
        """Bind the first free address and return it; raises `TransportUnavailable`."""
        config = self.config
        curve = self.curve
        if curve is not None:
            self._key_check = KeyCheck(self._context, curve.allowed)
        listener = Listener(self._context, config, self.plane, self.timeout_ms, self, curve)
        self._endpoints.append(listener)
        listener.start()
        log.info("%s listens on %s for the %s plane", self.name, listener.address, self.plane)
        is_open = curve is None or (curve.allowed is None and self.plane == "agent" and not self.proofs.asks)
        if is_open and not is_local(listener.address):
            log.warning("%s is open to the network and not protected: whoever reaches it can join and ask "
                        "(set identity.key and identity.admitted, or for transports.zeromq set secret_key and "
                        "allowed_keys, or name a loopback address)", listener.address)  # fmt: skip
        return listener.address

    def dial(self) -> None:
        """Connect to every address, whether a process listens there or not; raises `TransportUnavailable`."""
        addresses = [each for each in self._addresses if not takes_any_port(each)]
        if not addresses:
            raise TransportUnavailable(f"{', '.join(self._addresses)}: to connect, name the port")
        for address in addresses:
            if is_wildcard(address):
                raise TransportUnavailable(
                    f"{address} can be listened on but not connected to: name the host of the orchestrator instead"
                )
            dialer = Dialer(self._context, self.config, address, self.timeout_ms, self, self.curve)
            self._endpoints.append(dialer)
            dialer.start()

    async def close_all(self, reason: str) -> None:
        """Say goodbye to the peers, transmit what waits for a bounded time, release everything; idempotent."""
        if self.guard.closed:
            return
        self.guard.close()
        for wire in self.wires():
            if wire.agent is not None or wire.hub is not None:
                self.say_goodbye(wire, reason)
        await asyncio.gather(*(endpoint.close(LINGER_MS) for endpoint in self._endpoints))
        await self._release()

    async def abandon(self) -> None:
        """Release everything after a failure to open."""
        self.guard.close()
        for endpoint in self._endpoints:
            endpoint.abort()
        await self._release()

    def wires(self) -> list[Wire]:
        return [wire for endpoint in self._endpoints for wire in endpoint.wires()]

    def encode(self, message: Message) -> bytes:
        """Raises `PayloadTooLarge`, or `TransportError` for text that is no Unicode."""
        check_payload(message, self.config.max_message_bytes)
        data = encode(message)
        limit = encoded_limit(self.config.max_message_bytes)
        if len(data) > limit:
            raise PayloadTooLarge(f"the message has {len(data)} bytes when encoded, the limit is {limit}")
        return data

    def send_own(self, wire: Wire, message: Message) -> None:
        """Send one of the transport's own messages; that a peer is gone is reported another way."""
        try:
            wire.send(encode(message), bounded=False)
        except AnywireError as error:
            log.debug("%s", error)

    def say_goodbye(self, wire: Wire, reason: str) -> None:
        """End the link by a message, and answer the peer's: once on each connection."""
        if not wire.goodbye_sent:
            wire.goodbye_sent = True
            self.send_own(wire, Goodbye(reason))

    # As a WireSink

    def opened(self, wire: Wire) -> None:
        raise NotImplementedError

    def ended(self, wire: Wire, reason: str) -> None:
        raise NotImplementedError

    def received(self, wire: Wire, data: bytes) -> None:
        if wire.refused:
            return
        if self.guard.closed:
            if is_goodbye(data):
                wire.part()
            return
        if len(data) > HELLO_BYTES and wire.agent is None and wire.hub is None:
            self.refuse(wire, f"its first message has {len(data)} bytes, a hello has at most {HELLO_BYTES}")
            return
        try:
            message = decode(data)
            handler = self._handlers.get(type(message))
            if handler is None:
                raise msgspec.DecodeError(f"{type(message).__name__} is not for this end")
            check_payload(message, self.config.max_message_bytes)
        except UnknownKind as error:
            self._pass_over(wire, error)
        except msgspec.MsgspecError as error:
            self._refuse_unreadable(wire, data, error)
        except AnywireError as error:
            self.refuse(wire, str(error))
        else:
            handler(wire, message)

    # For subclasses

    def refuse(self, wire: Wire, reason: str, for_peer: str = "") -> None:
        """End the link, if there is one, and read nothing more of this connection. Its peer is told why, in the words
        ``for_peer`` unless they are the same, and connects anew after a pause."""
        if wire.refused:
            return
        wire.refused = True
        self.once.warn((wire.address, reason), "%s is not linked to %s: %s", wire.peer, self.name, reason)
        self.unlinked.note(wire.address, f"{wire.peer} is not linked: {reason}")
        self.ended(wire, reason)
        self.say_goodbye(wire, for_peer or reason)
        wire.restart()

    def wrong_hello(self, wire: Wire, hello: AgentHello | HubHello, links: HubLinks[Wire] | AgentLinks[Wire]) -> bool:
        """Whether a peer that introduces itself so cannot be linked; it is refused then."""
        protocol, plane, info = hello.protocol, hello.plane, hello.info
        if protocol != PROTOCOL:
            named = printable(protocol, 40)
            self.refuse(wire, f"it speaks {named}, this end {PROTOCOL}: use one version of anywire-zeromq everywhere")
            return True
        try:
            links.check_hello(info, wire.key, wire.link_key)
        except LinkRefused as error:
            self.refuse(wire, str(error), error.for_peer)
            return True
        if plane != self.plane:
            self.refuse(wire, f"this is the {self.plane} plane, it looks for the {plane} plane: check the addresses")
            return True
        return False

    def part(self, wire: Wire, reason: str) -> None:
        """End the link of a connection, tell the peer, and connect anew after a pause where this end has connected."""
        self.ended(wire, reason)
        self.say_goodbye(wire, reason)
        wire.restart()

    def peer_left(self, wire: Wire, goodbye: Goodbye, linked: bool) -> None:
        """The peer has ended the link, or will not have one."""
        reason = printable(goodbye.reason)
        if not linked:
            self.once.warn((wire.address, reason), "%s does not let %s join: %s", wire.peer, self.name, reason)
            self.unlinked.note(wire.address, f"{wire.peer} does not let this end join: {reason}")
        self.part(wire, reason)

    def use_spare(self, is_for: Callable[[Wire], bool]) -> None:
        """A link has ended: let another connection to the same peer make the next one."""
        for wire in self.wires():
            if wire.spare and is_for(wire):
                wire.restart()

    def _pass_over(self, wire: Wire, error: UnknownKind) -> None:
        """A neighbouring version may send more kinds, once it has introduced itself; nobody else may."""
        if wire.agent is None and wire.hub is None:
            self.refuse(wire, f"it sent something unreadable: {error}")
        else:
            log.debug("%s sent %s something that it does not know: %s", wire.peer, self.name, error)

    def _refuse_unreadable(self, wire: Wire, data: bytes, error: msgspec.MsgspecError) -> None:
        try:
            check_unreadable(data, self._own)
        except LinkRefused as refused:
            self.refuse(wire, str(refused), refused.for_peer)
        else:
            self.refuse(wire, str(mapped(error, "it sent something unreadable")))

    async def _release(self) -> None:
        if self._key_check is not None:
            self._key_check.close()
        # It waits until everything is transmitted or has lingered: not a wait for the event loop.
        await asyncio.get_running_loop().run_in_executor(None, self._context.term)
