"""Loss in one direction: who does not hear whom, told in the USER_DATA of participants.

When packets to a process are lost, it loses its peers after their leases, while they go on to hear it and would take it
for healthy. The announcement of its participant still goes out, though, and says whom it does not hear. Whoever finds
himself there ends the links to that process, and announces himself again and again until he is heard: otherwise that
would happen only as often as a lease asks for, and a long lease would keep both apart after the path works again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import Callable
from typing import Any

from cyclonedds.builtin import BuiltinTopicDcpsParticipant
from cyclonedds.core import DDSException, InstanceState, Policy, Qos
from cyclonedds.domain import DomainParticipant

from anywire_dds import user_data
from anywire_dds.builtin_reader import BuiltinReader

MOST = 64
"""Participants that are told of; of more the oldest are left out, since an announcement is one datagram."""

OFTEN = 0.4
"""Of the lease of whoever does not hear this process: how often it announces itself to him."""

SOONEST = 0.1
"""Seconds between two announcements at least."""


def short(participant: str) -> str:
    """A participant's key in eight characters."""
    return f"{zlib.crc32(participant.encode()):08x}"


class Unheard:
    """Whom one participant of this process has lost by silence, as it announces it. Its ends share it."""

    def __init__(self, participant: DomainParticipant, protocol: str) -> None:
        self._participant, self._protocol = participant, protocol
        self._lost: dict[str, None] = {}
        self._calls = 0
        self._announced = time.monotonic()
        self._told = True

    def lost(self, participant: str | None) -> None:
        """This one fell silent, and did not say goodbye."""
        if participant is not None and short(participant) not in self._lost:
            self._lost[short(participant)] = None
            if len(self._lost) > MOST:
                del self._lost[next(iter(self._lost))]
            self._tell()

    def found(self, participant: str | None) -> None:
        """This one is heard."""
        if participant is not None and self._lost and short(participant) in self._lost:
            del self._lost[short(participant)]
            self._tell()

    def announce(self, every: float) -> None:
        """Announce this participant now, unless that was done less than ``every`` seconds ago."""
        if time.monotonic() - self._announced >= every / 2:
            self._calls += 1
            self._write()

    def _tell(self) -> None:
        # Many peers may be lost or found in one turn of the event loop.
        if self._told:
            self._told = False
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._told, self._announced = True, time.monotonic()
        said = user_data.of_participant(self._protocol, ",".join(self._lost), self._calls)
        with contextlib.suppress(DDSException):  # the participant is gone: nobody need hear it
            self._participant.set_qos(Qos(said))  # Cyclone announces a change at once


class Hearing:
    """Who does not hear a participant of this process, seen by one of its ends.

    ``unheard(participant)`` is called when a participant begins to say that it does not hear this one.
    """

    def __init__(
        self, participant: DomainParticipant, own: Unheard, unheard: Callable[[str], None], watch: Callable[..., None]
    ) -> None:
        self._own, self._unheard = own, unheard
        self._name = short(str(participant.guid))
        self._loop = asyncio.get_running_loop()
        self._deaf: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.reader = BuiltinReader(participant, BuiltinTopicDcpsParticipant)
        watch(self.reader._ref, self.look)

    def look(self) -> None:
        """Take in what has been announced since."""
        for sample in () if self._closed else self.reader.news():
            self._take(str(sample.key), sample)
            if self._closed:
                return

    def close(self) -> None:
        """Call nothing any more; idempotent. The reader is the caller's to delete."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _take(self, participant: str, sample: Any) -> None:
        alive = sample.sample_info.instance_state == InstanceState.Alive
        if not alive or self._name not in user_data.entry(sample.qos, user_data.UNHEARD).split(","):
            self._deaf.pop(participant, None)
            return
        lease = sample.qos[Policy.Liveliness].lease_duration / 1e9 if Policy.Liveliness in sample.qos else 1.0
        known = participant in self._deaf
        self._deaf[participant] = max(lease * OFTEN, SOONEST)
        if not known:
            self._unheard(participant)
        if self._timer is None:
            self._announce()

    def _announce(self) -> None:
        self._timer = None
        if self._deaf and not self._closed:
            every = min(self._deaf.values())
            self._own.announce(every)
            self._timer = self._loop.call_later(every, self._announce)
