"""What a hub and an agent's port have in common: one end of a plane, with its links and its way to close.

Orchestrators listen on both planes, because they are what others look for: on the agent plane that is the hub, on the
client plane the agent. The other end dials every address of the plane.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial

import grpc
from google.protobuf.message import DecodeError

from anywire.errors import PayloadTooLarge, TransportUnavailable
from anywire.transport import Plane
from anywire_grpc.config import GrpcConfig, is_wildcard
from anywire_grpc.dialling import Dialler
from anywire_grpc.faults import mapped
from anywire_grpc.library import check_tls
from anywire_grpc.listening import Listener, listen
from anywire_grpc.wire import CLOSED, NOBODY, REPLACED, Ending, HalfClose, Stream, Wire

log = logging.getLogger(__name__)

HELLO_S = 10.0
"""How long a peer may take to introduce itself."""

LINGER_S = 1.0
"""How long what was accepted may take to leave when an end closes."""

SILENCE = 4
"""Leases until the listening end gives up a connection that answers no ping; the dialling end does after one. That a
peer is silent the pipeline notices after one; this only frees what a peer behind a broken network has left."""


class End:
    """`listen` or `dial`; subclasses say what frames mean."""

    def __init__(self, config: GrpcConfig, plane: Plane, me: str, lease_ms: int) -> None:
        self.config, self.plane, self.me = config, plane, me
        self.closed = False
        self.links: dict[str, Wire] = {}
        """The wires of linked peers, by the name each peer gave itself."""
        self.silence_ms = lease_ms
        """How long a peer may leave gRPC's pings unanswered before its connection is given up."""
        self.addresses = config.agent_addresses if plane == "agent" else config.client_addresses
        self.wires: set[Wire] = set()
        self._listener: Listener | None = None
        self._dialling: list[asyncio.Task[None]] = []

    async def listen(self) -> str:
        """Take the first free address and return it; `answer` opens it. Raises `TransportUnavailable`."""
        self.silence_ms *= SILENCE
        self._listener = await listen(self.config, self.addresses, self.plane, self.silence_ms)
        log.info("%s listens on %s for the %s plane", self.me, self._listener.address, self.plane)
        return self._listener.address

    def answer(self) -> None:
        """From now on admit those who dial."""
        assert self._listener is not None
        self._listener.admit(self.plane, self.talk)

    def check_dialling(self) -> None:
        """Raises `TransportUnavailable` when `dial` cannot work with these settings."""
        for address in self.addresses:
            if is_wildcard(address):
                raise TransportUnavailable(
                    f"{address} can be listened on but not connected to: name the host of the orchestrator instead"
                )
        check_tls(self.config)

    def dial(self) -> None:
        """Connect to every address, be somebody there or not."""
        diallers = [Dialler(self, address) for address in self.addresses]
        self._dialling = [asyncio.create_task(each.keep()) for each in diallers]

    async def close(self) -> None:
        """Send what was accepted, for a bounded time, and say goodbye; idempotent."""
        if self.closed:
            return
        self.closed = True
        wires = list(self.wires)
        for wire in wires:
            wire.finish()
        if wires:
            leaving = [asyncio.ensure_future(wire.gone.wait()) for wire in wires]
            await asyncio.wait(leaving, timeout=LINGER_S)
            for wire in wires:
                wire.end(CLOSED)
            await asyncio.gather(*leaving)
        for each in self._dialling:
            each.cancel()
        for each in self._dialling:
            with suppress(asyncio.CancelledError):
                await each
        if self._listener is not None:
            await self._listener.leave(self.plane)

    async def talk(self, wire: Wire, stream: Stream, half_close: HalfClose | None = None) -> Ending:
        """Be linked by ``wire`` for as long as its stream lasts; how it ended."""
        if self.closed:
            return NOBODY
        ending = Ending(grpc.StatusCode.ABORTED, "its connection ended")
        self.wires.add(wire)
        unanswered = asyncio.get_running_loop().call_later(HELLO_S, self._still_unknown, wire)
        try:
            self.opened(wire)
            ending = await wire.run(stream, half_close, partial(self._received, wire))
        finally:
            unanswered.cancel()
            self.wires.discard(wire)
            self.ended(wire, ending)
            wire.known.set()
            wire.gone.set()
        return ending

    def opened(self, wire: Wire) -> None:
        """Nothing was said on ``wire`` yet: the end that has dialled introduces itself."""
        raise NotImplementedError

    def received(self, wire: Wire, data: bytes) -> None:
        """Raises `DecodeError` for anything that is no frame."""
        raise NotImplementedError

    def lost(self, wire: Wire, reason: str) -> None:
        """A linked wire is over."""
        raise NotImplementedError

    # For subclasses

    def join(self, wire: Wire, name: str) -> None:
        """``wire`` is the link to ``name`` from now on, and no other."""
        old = self.links.get(name)
        if old is not None:
            self.ended(old, REPLACED)
        wire.name = name
        wire.known.set()
        self.links[name] = wire

    def ended(self, wire: Wire, ending: Ending) -> None:
        wire.end(ending)
        if self.links.get(wire.name) is wire:
            del self.links[wire.name]
            if not self.closed:
                self.lost(wire, ending.reason)

    def refuse(self, wire: Wire, code: grpc.StatusCode, reason: str) -> None:
        self.ended(
            wire, Ending(code, reason, TransportUnavailable(f"{wire.peer} is not linked to {self.me}: {reason}"))
        )

    def checked(self, data: bytes) -> bytes:
        """Raises `PayloadTooLarge`."""
        limit = self.config.max_message_bytes
        if len(data) > limit:
            raise PayloadTooLarge(
                f"the message has {len(data)} bytes, the limit is {limit}: raise max_message_bytes at both ends"
            )
        return data

    def _received(self, wire: Wire, data: bytes) -> None:
        if self.closed or not wire.open:
            return
        try:
            self.received(wire, data)
        except DecodeError as error:
            reason = str(mapped(error, "it sent something unreadable"))
            self.refuse(wire, grpc.StatusCode.INVALID_ARGUMENT, reason)

    def _still_unknown(self, wire: Wire) -> None:
        if not wire.name:
            self.refuse(wire, grpc.StatusCode.DEADLINE_EXCEEDED, f"it did not introduce itself within {HELLO_S:.0f} s")
