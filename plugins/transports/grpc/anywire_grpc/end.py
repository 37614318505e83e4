"""What a hub and an agent's port have in common: one end of a plane, with its links and its way to close.

Orchestrators listen on both planes, because they are what others look for: on the agent plane that is the hub, on the
client plane the agent. The other end dials every address of the plane.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import grpc
from google.protobuf.message import DecodeError

from anywire.clock import SystemClock
from anywire.errors import AnywireError, TransportUnavailable
from anywire.lease import AwakeTime, Silence
from anywire.transport import Plane
from anywire.transport_tools import (
    CLOSE_TIMEOUT,
    AgentLinks,
    Guard,
    HubLinks,
    LinkProofs,
    LinkRefused,
    Unlinked,
    new_end_certificate,
    option_of,
    takes_any_port,
)
from anywire_grpc.codec import ENVELOPE_BYTES
from anywire_grpc.config import GrpcConfig, is_wildcard
from anywire_grpc.dialling import Dialler
from anywire_grpc.faults import mapped
from anywire_grpc.library import check_tls
from anywire_grpc.listening import Listener, listen
from anywire_grpc.wire import CLOSED, NOBODY, REPLACED, Ending, HalfClose, Stream, Wire

log = logging.getLogger(__name__)

HELLO_S = 10.0
"""Seconds that a peer may take to introduce itself."""

UNACKNOWLEDGED_LEASES = 4
"""Own leases after which a connection is given up whose other machine acknowledges nothing, or has taken nothing more
for so long (TCP_USER_TIMEOUT). A silent agent is noticed by the registry after one; this frees what is left of it. A
peer that is paused keeps its connection: its machine acknowledges, until its receive buffer is full."""


class End:
    """`listen` or `dial`; subclasses say what frames mean."""

    def __init__(self, config: GrpcConfig, plane: Plane, me: str, lease_ms: int, proofs: LinkProofs) -> None:
        self.config, self.plane, self.me, self.proofs = config, plane, me, proofs
        own = not config.secured and (config.encrypted or proofs.shows)
        self.certificate = new_end_certificate() if own else None
        self.guard = Guard()
        self.unacknowledged_ms = lease_ms * UNACKNOWLEDGED_LEASES
        """Milliseconds for which a peer's machine may acknowledge nothing before its connection is given up."""
        self.unlinked = Unlinked()
        directory: list[str] = getattr(config, option_of(plane))
        self.addresses = [each for each in directory if not takes_any_port(each)]
        """Those that can be dialled."""
        self.wires: set[Wire] = set()
        """All that are not over, links or not."""
        self._awake = AwakeTime(SystemClock())
        self._listener: Listener | None = None
        self._dialling: list[asyncio.Task[None]] = []

    async def listen(self) -> str:
        """Take the first free address and return it; `answer` opens it. Raises `TransportUnavailable`."""
        self._listener = await listen(
            self.config, self.plane, self.unacknowledged_ms, self.certificate, self.proofs.asks
        )
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
        if self.guard.closed:
            return
        self.guard.close()
        wires = list(self.wires)
        for wire in wires:
            wire.finish()
        if wires:
            leaving = [asyncio.ensure_future(wire.gone.wait()) for wire in wires]
            await asyncio.wait(leaving, timeout=CLOSE_TIMEOUT)
            for wire in wires:
                wire.end(CLOSED)
            await asyncio.gather(*leaving)
        for each in self._dialling:
            each.cancel()
        for outcome in await asyncio.gather(*self._dialling, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("closing %s: %s", self.me, outcome, exc_info=outcome)
        if self._listener is not None:
            await self._listener.leave(self.plane)

    async def talk(self, wire: Wire, stream: Stream, half_close: HalfClose | None = None) -> Ending:
        """Be linked by ``wire`` for as long as its stream lasts; how it ended."""
        if self.guard.closed:
            return NOBODY
        ending = Ending(grpc.StatusCode.ABORTED, "its connection ended")
        self.wires.add(wire)
        unanswered = Silence(self._awake, HELLO_S, partial(self._still_unknown, wire))
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
        """Raises `DecodeError` for anything that is no frame, `AnywireError` for what may not be said now."""
        raise NotImplementedError

    @property
    def links(self) -> HubLinks[Wire] | AgentLinks[Wire]:
        raise NotImplementedError

    # For subclasses

    def named(self, wire: Wire, name: str) -> None:
        """``wire`` leads to the peer ``name``."""
        wire.name = name
        wire.known.set()

    def replaced(self, old: Wire | None) -> None:
        """``old`` is no link any more, if there was one: another wire is."""
        if old is not None:
            old.end(REPLACED)

    def ended(self, wire: Wire, ending: Ending) -> None:
        wire.end(ending)
        self.links.ended(wire, ending.reason)

    def refuse(self, wire: Wire, code: grpc.StatusCode, reason: str, for_peer: str = "") -> None:
        """End the call. A peer that has dialled is told ``reason``, or ``for_peer``."""
        error = TransportUnavailable(f"{wire.peer} is not linked to {self.me}: {reason}")
        self.ended(wire, Ending(code, reason, error, for_peer))

    def _received(self, wire: Wire, data: bytes) -> None:
        if self.guard.closed or not wire.open:
            return
        try:
            if len(data) > ENVELOPE_BYTES and not wire.name:
                raise DecodeError(f"its first message has {len(data)} bytes, a hello has at most {ENVELOPE_BYTES}")
            self.received(wire, data)
        except DecodeError as error:
            reason = str(mapped(error, "it sent something unreadable"))
            self.refuse(wire, grpc.StatusCode.INVALID_ARGUMENT, reason)
        except LinkRefused as error:
            self.refuse(wire, grpc.StatusCode.FAILED_PRECONDITION, str(error), error.for_peer)
        except AnywireError as error:
            self.refuse(wire, grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _still_unknown(self, wire: Wire) -> None:
        if not wire.name:
            self.refuse(wire, grpc.StatusCode.DEADLINE_EXCEEDED, f"it did not introduce itself within {HELLO_S:.0f} s")
