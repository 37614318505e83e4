"""Health of agents and links: who has failed too often in a row rests for a while, and is then tried with one task.

A subject is an agent (by id) or one of its links (agent id and transport number). After ``limit`` failures in a row it
cools down: no task is sent to it while another agent serves the model (over another link, if it is the link that
cools). Then one attempt is its probe: when that goes well it is as before, else it cools down again for twice as
long, up to `LONGEST` seconds. Errors that are the request's, refusals and cancels never count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from anywire import errors
from anywire.clock import Clock, Timer
from anywire.errors import AnywireError

LONGEST = 30.0

Subject = str | tuple[str, int]
State = Literal["ok", "cooling", "probing"]

_AGENT_FAULTS = (errors.EngineFailed, errors.NoProgress, errors.StreamCorrupted, errors.AgentLost)
_LINK_FAULTS = (errors.AgentUnavailable, errors.TransportUnavailable)


def is_agents_fault(error: AnywireError) -> bool:
    """Whether ``error`` counts against the agent: 4xx answers of the engine behind it do not."""
    return isinstance(error, _AGENT_FAULTS) and not 400 <= error.status < 500


def is_links_fault(error: AnywireError) -> bool:
    return isinstance(error, _LINK_FAULTS)


class _Record:
    __slots__ = ("cause", "errors", "probes", "state", "timer", "trips")

    def __init__(self) -> None:
        self.errors = self.trips = self.probes = 0
        self.state: State = "ok"
        self.cause = ""
        self.timer: Timer | None = None


class Health:
    """``changed(subject)`` is called when a subject begins or ends to cool down. Subjects that are ok cost nothing."""

    def __init__(self, clock: Clock, changed: Callable[[Subject], None], *, limit: int = 3, cooldown: float = 1.0):
        self._clock, self._changed = clock, changed
        self._limit, self._cooldown = limit, cooldown
        self._records: dict[Subject, _Record] = {}

    def state(self, subject: Subject) -> State:
        record = self._records.get(subject)
        return record.state if record is not None else "ok"

    def cause(self, subject: Subject) -> str:
        """The code of its newest failure, empty when it is ok."""
        record = self._records.get(subject)
        return record.cause if record is not None else ""

    @property
    def all_ok(self) -> bool:
        """Whether nobody has failed lately: nothing need be asked then."""
        return not self._records

    def resting(self, subject: Subject) -> bool:
        """Whether it should get no task now: it cools down, or its probe is under way."""
        record = self._records.get(subject)
        return record is not None and (record.state == "cooling" or (record.state == "probing" and record.probes > 0))

    def resting_agents(self) -> set[str]:
        """The agents, not links, that are `resting`."""
        return {subject for subject in self._records if isinstance(subject, str) and self.resting(subject)}

    def note(
        self, agent_id: str, place: tuple[str, int], error: AnywireError | None, is_blameless: bool = False
    ) -> None:
        """An attempt on an agent, over the link ``place``, ended with ``error``, or None for an answer.
        ``is_blameless``: the error arose below the agent, which is an orchestrator."""
        if error is None:
            self.succeeded(agent_id)
            self.succeeded(place)
        elif is_agents_fault(error) and not is_blameless:
            self.failed(agent_id, error.code)
        elif is_links_fault(error) and not is_blameless:
            self.failed(place, error.code)
        elif self._records:
            self.neutral(agent_id)
            self.neutral(place)

    def sent(self, subject: Subject) -> None:
        """A task is on its way to it."""
        record = self._records.get(subject)
        if record is not None and record.state == "probing":
            record.probes += 1

    def succeeded(self, subject: Subject) -> None:
        record = self._records.pop(subject, None)
        if record is not None:
            _cancel(record)
            if record.state != "ok":
                self._changed(subject)

    def failed(self, subject: Subject, cause: str) -> None:
        """One more failure in a row; ``cause`` is its code."""
        if not self._limit:
            return
        record = self._records.setdefault(subject, _Record())
        record.errors += 1
        record.cause = cause
        record.probes = 0
        if record.state == "cooling":
            return
        if record.state == "probing" or record.errors >= self._limit:
            record.state = "cooling"
            pause = min(self._cooldown * 2**record.trips, LONGEST)
            record.trips = min(record.trips + 1, 16)
            record.timer = self._clock.call_later(pause, self._probe, subject, record)
            self._changed(subject)

    def neutral(self, subject: Subject) -> None:
        """An attempt ended in a way that says nothing of it: a probe may be made again."""
        record = self._records.get(subject)
        if record is not None and record.probes:
            record.probes -= 1
            self._changed(subject)

    def forget(self, subject: Subject) -> None:
        """It is gone; a new life begins with a clean record."""
        record = self._records.pop(subject, None)
        if record is not None:
            _cancel(record)

    def close(self) -> None:
        for record in self._records.values():
            _cancel(record)

    def _probe(self, subject: Subject, record: _Record) -> None:
        record.timer = None
        record.state = "probing"
        self._changed(subject)


def _cancel(record: _Record) -> None:
    if record.timer is not None:
        record.timer.cancel()
        record.timer = None
