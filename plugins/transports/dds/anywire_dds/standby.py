"""Which of several orchestrators is the active one, held by DDS exclusive ownership.

The protocol is described beside ``Candidate`` in ``idl/OrchestratorDDS.idl``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from cyclonedds._clayer import ddspy_unregister_instance
from cyclonedds.core import DDSException, Entity, InstanceState, Policy, Qos, SampleState, ViewState
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from anywire.errors import AnywireError
from anywire.messages import HubInfo
from anywire.protocol import PROTOCOL
from anywire.transport import Candidacy, CandidateSink
from anywire_dds import qos, types, user_data
from anywire_dds.cdr import Malformed, codec
from anywire_dds.config import DdsConfig
from anywire_dds.domain import acquire, release
from anywire_dds.endpoints import on_thread
from anywire_dds.faults import mapped
from anywire_dds.log_once import LogOnce
from anywire_dds.older_binding import packed_key, read_key, take
from anywire_dds.wakeup import Wakeup
from anywire_dds.writer import Writer

log = logging.getLogger(__name__)

TOPIC = "orchestrator/active"
ACTIVE = "active"
"""The seat that all candidates claim."""

TERM = 1024
"""What a term adds to a strength: more than any strength."""
BEAT = 0.2
"""Of a lease: how often a candidate looks whether it was paused itself."""
PAUSED = 0.5
"""Of a lease: so late a look means that it was, and that others may seem dead to it that are not."""
DETECTION = 0.8
"""Of a lease: when a silent candidate is given up, so that its death is noticed within its lease."""
GOODBYE = 0.1
"""Seconds that the others get to acknowledge a goodbye."""
MAX_CANDIDATES = 256
"""Candidates that are known of; of more nothing is taken in."""
LAST_RANK = 2**31 - 1
LAST_TERM = (2**31 - 1) // TERM - 1
"""The last one whose strength DDS can carry; those after it have no higher one."""

_CODEC = codec(types.Candidate)
_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
_BATCH = 256
_POLICIES = (
    Policy.Reliability.Reliable(duration(nanoseconds=0)),
    Policy.Durability.TransientLocal,
    Policy.History.KeepLast(1),
    Policy.Ownership.Exclusive,
)


class Standing(NamedTuple):
    """A candidate as its samples tell; ``term`` is 0 until it claims."""

    seat: str
    hub: HubInfo
    strength: int
    term: int = 0
    rank: int = 0
    """One more than the highest there was when it began to stand: no clock tells who stands longest."""

    @property
    def order(self) -> tuple[int, int, str]:
        """Who of those that stand by is elected: the lowest."""
        return -self.strength, self.rank, self.seat


class Election:
    """What one candidate knows of the others, and what follows. Pure: samples in, verdicts out."""

    def __init__(self, own: Standing) -> None:
        self.own = own
        self.active: Standing | None = None
        """Whose claim was seen last; it may be gone since."""
        self.term = 0
        """The highest seen."""
        self._present: dict[str, Standing] = {}

    def stands(self, candidate: Standing) -> None:
        if len(self._present) >= MAX_CANDIDATES and candidate.seat not in self._present:
            return
        self._present[candidate.seat] = candidate
        self.term = max(self.term, candidate.term)

    def take_rank(self) -> None:
        """Begin to stand, behind all that do."""
        ranks = [each.rank for each in self._present.values() if each.seat != self.own.seat]
        self.own = self.own._replace(rank=min(max(ranks, default=0) + 1, LAST_RANK))

    def gone(self, seat: str) -> None:
        self._present.pop(seat, None)

    def claimed(self, by: Standing) -> None:
        """The ownership of the active seat is with this candidate's claim."""
        self.active = by
        self.term = max(self.term, by.term)

    @property
    def mine(self) -> bool:
        return self.active is not None and self.active.seat == self.own.seat

    @property
    def vacant(self) -> bool:
        return self.active is None or self.active.seat not in self._present

    @property
    def my_turn(self) -> bool:
        return self.vacant and all(self.own.order <= each.order for each in self._present.values())


class DdsCandidacy(Candidacy):
    """Made by `DdsTransport.stand`."""

    def __init__(self, config: DdsConfig, hub: HubInfo, strength: int, sink: CandidateSink) -> None:
        """Raises `TransportUnavailable`."""
        self._config, self._sink = config, sink
        self._loop = asyncio.get_running_loop()
        self._lease = config.lease if config.lease is not None else hub.lease_ms / 1000
        self._election = Election(Standing(f"{hub.hub_id}/{hub.incarnation}", hub, strength))
        self._told = ""
        self._faults = LogOnce(log)
        # Those of another major version serve other agents: they elect one of their own.
        major = (hub.protocol or PROTOCOL).partition(".")[0]
        self._partition = f"{config.fleet_name}/orchestrators/{user_data.escape(major)}"
        self._elected = self._stopped = False
        self._closing: asyncio.Task[None] | None = None
        self._writers: list[Writer] = []
        self._domain = acquire(config)
        try:
            # One of its own: agents and hubs are given up later.
            asserted = round(self._lease * 1e9 * DETECTION)
            self._participant = self._domain.participant(asserted, config.participant, hub.protocol or PROTOCOL)
            self._wakeup = Wakeup(self._loop)
        except BaseException as error:
            release(config)
            if isinstance(error, DDSException):
                raise mapped(error, f"joining DDS domain {config.domain}", opening=True) from error
            raise
        self._entities: list[Entity] = []
        self._beat_at = self._loop.time()
        self._beat_timer = self._loop.call_later(self._lease * BEAT, self._beat)
        self._then = self._observation_over
        """What is done when the others have been seen for a lease: see `_wait`."""
        self._timer: asyncio.TimerHandle | None = None
        self._wait()
        try:
            self._topic: Topic[Any] = self._domain.topic(self._participant, TOPIC, types.Candidate)
            subscriber = Subscriber(self._participant, qos.partition_qos(self._partition))
            self._entities.append(subscriber)
            reader = DataReader(subscriber, self._topic, Qos(*_POLICIES))
            self._entities.append(reader)
            self._reader: int = reader._ref
            self._writers.append(self._writer(strength))
            self._wakeup.watch(self._reader, self._on_samples)
        except BaseException as error:
            self._stop()
            self._delete()
            self._release()
            if isinstance(error, DDSException):
                raise mapped(error, f"creating the endpoints of {TOPIC}", opening=True) from error
            raise

    async def close(self) -> None:
        if self._closing is None:
            self._stop()
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await on_thread(self._resign)
        await on_thread(self._delete)
        self._release()

    # Samples

    def _on_samples(self) -> None:
        if self._stopped:
            return
        samples = take(self._reader, _ANY, _BATCH)
        if not isinstance(samples, list):
            return
        for data, sample in samples:
            try:
                if not sample.valid_data:
                    self._election.gone(_seat(data))
                    continue
                seat, standing = _standing(_CODEC.unpack(data))
            except Malformed as error:
                self._faults.warning("unreadable", "an unreadable candidate is ignored: %s", error)
                continue
            if seat == ACTIVE:
                self._election.claimed(standing)
            elif sample.instance_state == InstanceState.Alive:
                self._election.stands(standing)
            else:
                self._election.gone(seat)
        if len(samples) == _BATCH:
            self._loop.call_soon(self._on_samples)
        else:
            self._decide()

    def _beat(self) -> None:
        self._notice_pause()
        self._beat_timer = self._loop.call_later(self._lease * BEAT, self._beat)

    def _notice_pause(self) -> None:
        now = self._loop.time()
        if now - self._beat_at > self._lease * PAUSED:
            log.warning("this process stood still for %.1f s; who is active is looked at anew", now - self._beat_at)
            self._wait()
        self._beat_at = now

    def _wait(self) -> None:
        """Do what is next in a lease from now: whoever can be heard is heard by then."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._lease, self._wait_over)

    def _wait_over(self) -> None:
        self._timer = None
        self._then()

    def _decide(self) -> None:
        self._notice_pause()
        election = self._election
        if self._elected:
            if not election.mine and election.active is not None:
                self._stop()
                by = election.active.hub
                self._sink.deposed(f"orchestrator {by.hub_id} on {by.host} is active in its place")
        elif election.mine:
            self._elected = True
            self._then = self._confirm
            self._wait()
            self._sink.elected()
        elif self._timer is not None:
            return
        elif election.my_turn:
            self._claim()
        elif election.active is not None and not election.vacant and election.active.seat != self._told:
            self._told = election.active.seat
            self._sink.active_seen(election.active.hub)

    # What it says

    def _observation_over(self) -> None:
        self._then = self._decide
        self._election.take_rank()
        self._write(self._writers[0], self._election.own.seat)
        self._decide()

    def _claim(self) -> None:
        election = self._election
        election.own = election.own._replace(term=min(election.term + 1, LAST_TERM))
        # The seat tells the term also to those who still see the former active one, and not this claim.
        self._write(self._writers[0], election.own.seat)
        self._write(self._writers[0], ACTIVE)

    def _confirm(self) -> None:
        """From now on nobody prevails who was active before, and comes back from a pause or over a healed network.

        Not at the election: it may be that only this end lost sight of the active one, which must then prevail.
        """
        self._then = self._decide
        own = self._election.own
        try:
            writer = self._writer(TERM * own.term + own.strength)
        except DDSException as fault:
            log.error("%s", mapped(fault, f"creating the writer of {TOPIC}"))
            return
        self._writers.append(writer)
        # Also its seat: the seat is then without writers only when the active one is free.
        self._write(writer, own.seat)
        self._write(writer, ACTIVE)
        log.info("orchestrator %s holds against any earlier one from now on (term %d)", own.hub.hub_id, own.term)

    def _write(self, writer: Writer, seat: str) -> None:
        own = self._election.own
        hub = own.hub
        lease_ms = round(self._lease * 1000)
        sample = _CODEC.pack(
            hub.incarnation, hub.pid, lease_ms, own.strength, own.term, own.rank, seat, hub.hub_id, hub.host
        )
        try:
            if not writer.write(sample):
                log.error("DDS did not take what was written to %s", TOPIC)
        except AnywireError as error:
            log.error("writing to %s: %s", TOPIC, error)

    def _writer(self, strength: int) -> Writer:
        publisher = Publisher(self._participant, qos.partition_qos(self._partition))
        policies = (*_POLICIES, Policy.OwnershipStrength(strength), Policy.WriterDataLifecycle(autodispose=False))
        writer = DataWriter(publisher, self._topic, Qos(*policies))
        return Writer([writer, publisher], writer._ref)

    # Its end

    def _stop(self) -> None:
        self._stopped = True
        self._wakeup.stop()
        self._beat_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _resign(self) -> None:
        """Give the active seat up, then say goodbye: whoever hears that can claim at once."""
        active = packed_key(_key(ACTIVE))
        for writer in self._writers:
            ddspy_unregister_instance(writer.handle, active)
        last = self._writers[-1]
        last.dispose(_key(self._election.own.seat))
        last.wait_acknowledged(GOODBYE)

    def _delete(self) -> None:
        for writer in self._writers:
            writer.delete()
        for entity in reversed(self._entities):
            entity.__del__()
        self._entities.clear()

    def _release(self) -> None:
        self._wakeup.release()
        release(self._config)


def _standing(values: tuple[Any, ...]) -> tuple[str, Standing]:
    incarnation, pid, lease_ms, strength, term, rank, seat, hub_id, host = values
    hub = HubInfo(hub_id, incarnation, host, pid, lease_ms)
    return seat, Standing(f"{hub_id}/{incarnation}", hub, strength, term, rank)


def _seat(data: bytes) -> str:
    """The seat of a key. Raises `Malformed`."""
    try:
        seat: str = read_key(types.Candidate, data).seat
    except Exception as error:  # whatever the library makes of bytes that are none
        raise Malformed(f"not readable as a seat: {error}") from error
    return seat


def _key(seat: str) -> types.Candidate:
    return types.Candidate(0, 0, 0, 0, 0, 0, seat, "", "")
