"""Faults of leases, pauses, brokers and wires that break."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from tests.conformance.planted.broker_channel import BrokerChannel
from tests.conformance.planted.fault import Around, Case, Fault

from anywire.errors import TransportUnavailable
from anywire.lease import Silence
from anywire.transport_tools import ChannelPort


class PausedHubUnnoticed(Fault):
    """An agent does not watch its hubs, though liveliness says ``native``."""

    class FaultyChannel(BrokerChannel):
        def watch(self, lease: float) -> Any:
            if isinstance(self._connection.end, ChannelPort):
                return None
            return super().watch(lease)


class PausedAgentUnnoticed(Fault):
    """Only broken connections are noticed, though liveliness says ``native``: of the Unix transport declared so."""


class LeaseTenTimes(Fault):
    """The lease is taken ten times too long: milliseconds read as hundredths."""

    class FaultyChannel(BrokerChannel):
        def watch(self, lease: float) -> Any:
            return super().watch(10 * lease)


class LeaseTooShort(Fault):
    """A peer is lost after a third of its lease."""

    class FaultyChannel(BrokerChannel):
        def watch(self, lease: float) -> Any:
            return Silence(self._awake, lease / 3, self._lapsed)


class _Timer:
    """A lease by plain timers."""

    def __init__(self, lease: float, lapsed: Any) -> None:
        self._lease, self._lapsed = lease, lapsed
        self._timer = asyncio.get_running_loop().call_later(lease, lapsed)

    def heard(self) -> None:
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._lease, self._lapsed)

    def cancel(self) -> None:
        self._timer.cancel()


class OwnPauseIsSilence(Fault):
    """Time in which this process's own loop was blocked counts as silence of its peers."""

    class FaultyChannel(BrokerChannel):
        def watch(self, lease: float) -> Any:
            return _Timer(lease, self._lapsed)


class HubLostMissingOnResume(Fault):
    """An agent that was paused joins its hub again and was not told that it had lost it."""

    class AroundAgentSink(Around):
        def hub_lost(self, *link: Any) -> None:
            pass


class ResumedIsNotJoined(Fault):
    """A life that was lost once does not join again."""

    class AroundHubSink(Around):
        known: frozenset[Any] = frozenset()
        refused = False

        def agent_joined(self, info: Any) -> None:
            self.refused = info.incarnation in self.known
            self.known |= {info.incarnation}
            if not self.refused:
                self.inner.agent_joined(info)

        def agent_reported(self, *report: Any) -> None:
            if not self.refused:
                self.inner.agent_reported(*report)

        def agent_lost(self, *link: Any) -> None:
            if not self.refused:
                self.inner.agent_lost(*link)


class NoReconnection(Fault):
    """A connection to the broker that has ended is not made again."""

    async def open_connection(self, connection: Any) -> None:
        connection.reconnects = False
        await connection.open()


class BrokerLossUnreported(Fault):
    """The loss of the broker is told nobody: links seem to be there."""

    class AroundHubSink(Around):
        def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
            if "broker" not in reason:
                self.inner.agent_lost(agent_id, incarnation, reason)


class BrokerAbsentUnnoticed(Fault):
    """Opening is successful without a broker."""

    async def open_connection(self, connection: Any) -> None:
        with contextlib.suppress(TransportUnavailable):
            await connection.open()


class LibraryExceptionOfOpening(Fault):
    """An absent broker shows as the exception of the socket."""

    async def open_connection(self, connection: Any) -> None:
        await connection.connect()


class PlaceOfTheBrokerUnsaid(Fault):
    """Opening without a broker does not say where one was looked for."""

    async def open_connection(self, connection: Any) -> None:
        try:
            await connection.open()
        except TransportUnavailable as error:
            raise TransportUnavailable("no broker") from error


class BrokerLossUnnamed(Fault):
    """The reason of a loss does not say that it was the broker."""

    class AroundHubSink(Around):
        def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
            self.inner.agent_lost(agent_id, incarnation, "the connection was lost")


class SentAgainAfterTheBroker(Fault):
    """What was sent before the broker went is sent once more when it is there again."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            self.fault.last = message
            self.inner.send(agent_id, message)

    class AroundHubSink(Around):
        joins = 0

        def agent_joined(self, info: Any) -> None:
            self.joins += 1
            self.inner.agent_joined(info)
            if self.joins == 2:
                self.fault.end.send(info.agent_id, self.fault.last)


class CloseWaitsForTheBroker(Fault):
    """An end that is closed while the broker is gone waits until it is there again."""

    class AroundHub(Around):
        waited = False

        async def close(self) -> None:
            if self.inner.connection._transport.is_closing() and not self.waited:
                self.waited = True
                await asyncio.Event().wait()
            await self.inner.close()


class TimerLeftRunning(Fault):
    """A timer of the transport goes on after its end is closed."""

    async def opened(self) -> None:
        self._again()

    def _again(self) -> None:
        asyncio.get_running_loop().call_later(0.1, self._again)


class OtherIncarnationAfterReconnect(Fault):
    """Each connection to the broker is a new life."""

    class AroundHubSink(Around):
        lives = 0

        def agent_joined(self, info: Any) -> None:
            self.lives += 1
            self.inner.agent_joined(msgspec.structs.replace(info, incarnation=info.incarnation + self.lives - 1))

        def agent_reported(self, agent_id: str, incarnation: int, status: Any) -> None:
            self.inner.agent_reported(agent_id, incarnation + self.lives - 1, status)

        def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
            self.inner.agent_lost(agent_id, incarnation + self.lives - 1, reason)


class BreakSeenAtOneEnd(Fault):
    """A broken connection is made again, and the agent is not told that the link was lost meanwhile."""

    class AroundAgentSink(Around):
        def hub_lost(self, *link: Any) -> None:
            pass


AGENT = "test_paused_agent_is_lost_within_two_leases_and_not_before_one"
HUB = "test_paused_hub_of_native_liveliness_is_lost_and_comes_back"
BROKER = "test_broker_that_goes_and_comes_back"
LONG = {"leases": 3.0}
CASES = [
    Case(PausedHubUnnoticed, HUB, "hub_lost", "broker", LONG),
    Case(PausedAgentUnnoticed, AGENT, "event ('lost', 'a'", "native"),
    Case(LeaseTenTimes, AGENT, "event ('lost', 'a'", "broker"),
    Case(LeaseTooShort, AGENT, "before one lease", "broker"),
    Case(OwnPauseIsSilence, "test_a_blocked_loop_is_no_silence_of_its_peers", "itself did not run", "broker"),
    Case(HubLostMissingOnResume, AGENT, "joined twice", "broker"),
    Case(ResumedIsNotJoined, AGENT, "event ('joined', 'a'", "broker"),
    Case(NoReconnection, BROKER, "joined again", "broker"),
    Case(BrokerLossUnreported, BROKER, "event ('lost', 'a'", "broker"),
    Case(BrokerAbsentUnnoticed, "test_absent_broker_is_named_at_opening", "DID NOT RAISE", "broker"),
    Case(
        LibraryExceptionOfOpening, "test_absent_broker_is_named_at_opening", "instead of TransportUnavailable", "broker"
    ),
    Case(PlaceOfTheBrokerUnsaid, "test_absent_broker_is_named_at_opening", "where the broker was looked for", "broker"),
    Case(BrokerLossUnnamed, BROKER, "does not name the broker", "broker"),
    Case(
        SentAgainAfterTheBroker,
        "test_what_was_under_way_when_the_broker_went_is_dropped",
        "not sent on this link",
        "broker",
    ),
    Case(CloseWaitsForTheBroker, "test_closing_while_the_broker_is_gone_returns", "close returned", "broker"),
    Case(TimerLeftRunning, "test_nothing_is_left_behind", "left nothing", "broker"),
    Case(OtherIncarnationAfterReconnect, BROKER, "with the same incarnation", "broker"),
    Case(BreakSeenAtOneEnd, "test_broken_wire_is_lost_at_both_ends_and_joins_again", "joined twice", "broker"),
]
