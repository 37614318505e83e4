"""How an end reaches those that listen: a channel and a call per address, again and again while nobody is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

import grpc

from anywire.errors import AgentUnavailable, AnywireError, TransportUnavailable
from anywire.transport import Plane
from anywire.transport_tools import (
    AgentLinks,
    Backoff,
    EndCertificate,
    Guard,
    HubLinks,
    OnceLog,
    StopDialling,
    Unlinked,
    keep_dialling,
)
from anywire_grpc.config import GrpcConfig
from anywire_grpc.library import METHODS, open_channel, tls_of
from anywire_grpc.wire import REPLACED, Ending, HalfClose, Stream, Wire

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""Seconds: the longest first pause between attempts to reach an absent peer, and the longest of all."""

TURN_S = 1.0
"""Seconds for which an attempt waits for one that is under way: an address where nobody answers must not hold up the
others."""


class DiallingEnd(Protocol):
    """The end, as its diallers see it."""

    config: GrpcConfig
    plane: Plane
    guard: Guard
    certificate: EndCertificate | None
    unacknowledged_ms: int
    unlinked: Unlinked

    @property
    def links(self) -> HubLinks[Wire] | AgentLinks[Wire]: ...

    @property
    def wires(self) -> Collection[Wire]:
        """Those that are not over."""
        ...

    async def talk(self, wire: Wire, stream: Stream, half_close: HalfClose | None = None) -> Ending:
        """Speak over a call until it is over, and say how it ended."""
        ...


class Dialler:
    """Keeps ``end`` linked to whoever listens at ``address``."""

    def __init__(self, end: DiallingEnd, address: str) -> None:
        self._end, self._address = end, address
        self._once = OnceLog(log)
        self._was_vague = False
        """Whether the last attempt told nothing of why it failed."""
        self._name = ""
        """Who was linked last."""

    async def keep(self) -> None:
        await keep_dialling(self._attempt, self._address, backoff=Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S))

    async def _attempt(self) -> bool:
        # One listener known by two addresses gets one link: to dial it again would replace the other for ever.
        while self._name and (other := self._end.links.find(self._name)) is not None:
            await other.gone.wait()
        if self._end.guard.closed:
            raise StopDialling
        await self._turn()
        linked, error = await self._link()
        if linked:
            self._name = linked
            self._once = OnceLog(log)
            self._end.unlinked.linked(self._address)
            if _replaced(error):
                # By another dialler of this end, perhaps, which may not have heard yet who it has reached.
                await asyncio.gather(*[wire.known.wait() for wire in self._end.wires])
        elif isinstance(error, AgentUnavailable):  # nobody there is normal
            log.debug("%s", error)
            self._end.unlinked.linked(self._address)
        elif _is_vague(error) and not self._was_vague:
            # The next attempt mostly tells what this one has lost.
            log.debug("%s", error)
            self._was_vague = True
            return False
        elif error is not None:
            self._once.warn(str(error), "%s", error)
            self._end.unlinked.note(self._address, str(error))
        self._was_vague = False
        return bool(linked)

    async def _turn(self) -> None:
        """Links are made one after the other: a listener known by two addresses that hears two hellos at once may keep
        the link that this end, which hears two answers at once, gives up."""
        try:
            async with asyncio.timeout(TURN_S):
                while unknown := [wire for wire in self._end.wires if not wire.known.is_set()]:
                    await unknown[0].known.wait()
        except TimeoutError:
            log.debug("%s is tried beside another address that does not answer", self._address)

    async def _link(self) -> tuple[str, AnywireError | None]:
        """Be linked while it lasts; the name of who was there, empty when nobody was linked, and what failed."""
        end = self._end
        metadata = []
        if end.config.token is not None:
            metadata.append(("authorization", f"Bearer {end.config.token.get_secret_value()}"))
        # A channel per attempt: gRPC's own back-off would go on in the background, and would not say what failed.
        try:
            tls = tls_of(end.config, end.certificate)
            channel = open_channel(end.config, self._address, end.unacknowledged_ms, tls)
        except TransportUnavailable as error:  # the TLS files were fine at opening, and may be again
            return "", error
        try:
            call = channel.stream_stream(METHODS[end.plane], None, None)(None, metadata=metadata)
            wire = Wire(self._address, end.config.buffer_bytes, link_key=tls.link_key if tls is not None else b"")
            ending = await end.talk(wire, call, call.done_writing)
        finally:
            await channel.close(None)
        return wire.name, ending.error


def _is_vague(error: AnywireError | None) -> bool:
    """Whether gRPC has lost the status with which a call ended: it was over when something was still to be sent."""
    cause = error.__cause__ if error is not None else None
    return (
        isinstance(cause, grpc.aio.AioRpcError)
        and cause.code() is grpc.StatusCode.INTERNAL
        and cause.details() == "Internal error from Core"
    )


def _replaced(error: AnywireError | None) -> bool:
    """Whether the listener said that it has another connection of this end."""
    cause = error.__cause__ if error is not None else None
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() is REPLACED.code
