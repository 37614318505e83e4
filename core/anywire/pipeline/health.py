"""Health of agents and links: a breaker for each that has failed, and quarantine for agents that fail again and again.

A subject is an agent (by id) or one of its links (agent id and transport number). One whose breaker does not allow it
(`anywire.pipeline.breaker`) gets no task while another agent serves the model (over another link, if it is the
link's). Errors that are the request's, refusals and cancels never count; the loss of one life of an agent is one
failure, however many attempts it takes along.

An agent whose breaker has opened ``quarantine_trips`` times is quarantined: no client's task goes there, whoever else
is there. Probes that the pipeline makes up are sent to it (`anywire.pipeline.probes`), and only one that it passes ends
the quarantine. Quarantine and failures outlast the agent's life: whoever crashes at every task is known when it is
back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from anywire import errors
from anywire.agent_health import WELL, AgentHealth, HealthState
from anywire.clock import Clock, Timer
from anywire.errors import AnywireError
from anywire.failure_settings import BreakerConfig
from anywire.pipeline.breaker import Breaker

QUARANTINED = "quarantined"
LONGEST_PROBE_PAUSE = 60.0
REMEMBERED_AWAY = 1024
"""Agents that are gone and whose failures are kept."""

Subject = str | tuple[str, int]


class _Record:
    __slots__ = ("breaker", "evidence", "lost_life", "timer")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.evidence: Counter[str] = Counter()
        self.lost_life = 0
        """The incarnation whose loss was counted last."""
        self.timer: Timer | None = None


class _Quarantine:
    __slots__ = ("pause", "probes", "reason", "timer", "until")

    def __init__(self, reason: str, pause: float) -> None:
        self.reason, self.pause, self.probes, self.until = reason, pause, 0, 0.0
        self.timer: Timer | None = None


class Health:
    """``changed(subject)`` is called when the state of a subject changes, ``probe(agent_id)`` when a quarantined agent
    is to be sent a probe. Subjects that have not failed cost nothing."""

    def __init__(
        self,
        clock: Clock,
        changed: Callable[[Subject], None],
        probe: Callable[[str], None],
        config: BreakerConfig,
    ) -> None:
        self._clock, self._changed, self._probe, self._config = clock, changed, probe, config
        self._records: dict[Subject, _Record] = {}
        self._quarantined: dict[str, _Quarantine] = {}
        self._away: OrderedDict[str, None] = OrderedDict()
        self._resting: set[str] = set()
        self.epoch = 0
        """What an attempt that is sent now is to carry; see `anywire.pipeline.breaker`."""

    @property
    def all_ok(self) -> bool:
        """Whether nobody has failed lately: nothing need be asked then."""
        return not self._records

    def state(self, subject: Subject) -> HealthState:
        if subject in self._quarantined:
            return "quarantined"
        record = self._records.get(subject)
        return record.breaker.state if record is not None else "closed"

    def cause(self, subject: Subject) -> str:
        """The code that its failures had most often since it was well, empty when there were none."""
        record = self._records.get(subject)
        return record.evidence.most_common(1)[0][0] if record is not None and record.evidence else ""

    def evidence(self, subject: Subject) -> dict[str, int]:
        """How many failures of each code it had since it was well."""
        record = self._records.get(subject)
        return dict(record.evidence) if record is not None else {}

    def report(self, agent_id: str) -> AgentHealth:
        """How an agent does, its links not counted."""
        record, quarantine = self._records.get(agent_id), self._quarantined.get(agent_id)
        if record is None:
            return WELL
        breaker, now = record.breaker, self._clock.now()
        state, reason, probes, until = self.state(agent_id), "", 0, breaker.until
        if quarantine is not None:
            reason, probes, until = quarantine.reason, quarantine.probes, quarantine.until
        elif breaker.state != "closed":
            reason = _told(record.evidence)
        waits = state in ("open", QUARANTINED)
        retry_in = max(0.0, until - now) if waits else 0.0
        return AgentHealth(state, "", reason, dict(record.evidence), breaker.trips, probes, retry_in)

    def resting(self, subject: Subject) -> bool:
        """Whether it should get no task now: it has failed and rests, or as many probes as may are under way."""
        record = self._records.get(subject)
        return record is not None and not record.breaker.allows

    def resting_agents(self) -> set[str]:
        """The agents, not links, that are `resting`."""
        return self._resting

    def is_quarantined(self, agent_id: str) -> bool:
        return agent_id in self._quarantined

    # What attempts come to

    def sent(self, subject: Subject) -> None:
        """A task is on its way to it."""
        record = self._records.get(subject)
        if record is not None:
            record.breaker.sent()
            self._settle(subject, record)

    def note(
        self,
        agent_id: str,
        place: tuple[str, int],
        error: AnywireError | None,
        epoch: int,
        life: int = 0,
        is_blameless: bool = False,
    ) -> None:
        """An attempt of ``epoch`` on the life ``life`` of an agent, over the link ``place``, ended with ``error``, or
        None for an answer. ``is_blameless``: the error arose below the agent, which is an orchestrator."""
        if error is None:
            self.succeeded(agent_id, epoch)
            self.succeeded(place, epoch)
        elif error.blames == "agent" and not is_blameless:
            self.failed(agent_id, error.code, epoch, life if isinstance(error, errors.AgentLost) else 0)
        elif error.blames == "link" and not is_blameless:
            self.failed(place, error.code, epoch)
        elif self._records:
            self.neutral(agent_id, epoch)
            self.neutral(place, epoch)

    def succeeded(self, subject: Subject, epoch: int) -> None:
        record = self._records.get(subject)
        if record is None:
            return
        before = record.breaker.state
        record.breaker.succeeded(self._clock.now(), epoch)
        if record.breaker.state == "closed" and not record.breaker.in_a_row:
            record.evidence.clear()
        self._settle(subject, record, before)

    def failed(self, subject: Subject, code: str, epoch: int, lost_life: int = 0) -> None:
        """One more failure. ``lost_life`` is the life that ended with it, 0 when none did."""
        if not self._config.errors:
            return
        record = self._records.get(subject)
        if record is None:
            record = self._records[subject] = _Record(Breaker(self._config, self._next_epoch))
        if lost_life:
            if lost_life == record.lost_life:
                self.neutral(subject, epoch)
                return
            record.lost_life = lost_life
        before = record.breaker.state
        record.evidence[code] += 1
        record.breaker.failed(self._clock.now(), epoch)
        self._settle(subject, record, before)

    def neutral(self, subject: Subject, epoch: int) -> None:
        """An attempt ended in a way that says nothing of it."""
        record = self._records.get(subject)
        if record is not None:
            rested = not record.breaker.allows
            record.breaker.neutral(epoch)
            self._settle(subject, record)
            if rested and record.breaker.allows:
                self._changed(subject)

    # Quarantine

    def probed(self, agent_id: str, passed: bool) -> None:
        """A probe of a quarantined agent has ended."""
        quarantine = self._quarantined.get(agent_id)
        if quarantine is None:
            return
        if not passed:
            self._probe_later(agent_id, quarantine)
            return
        del self._quarantined[agent_id]
        self.forget(agent_id)
        self._changed(agent_id)

    def probe_now(self, agent_id: str) -> None:
        """Do not wait for the time of the next probe: somebody says that it is well, or it has come back."""
        quarantine = self._quarantined.get(agent_id)
        if quarantine is not None and quarantine.timer is not None:
            quarantine.timer.cancel()
            self._send_probe(agent_id)

    # Coming and going

    def gone(self, agent_id: str) -> None:
        """An agent is gone. What it has done wrong is kept for the time when it is back."""
        if agent_id in self._records:
            self._away[agent_id] = None
            self._away.move_to_end(agent_id)
            if len(self._away) > REMEMBERED_AWAY:
                oldest, _ = self._away.popitem(last=False)
                quarantine = self._quarantined.pop(oldest, None)
                if quarantine is not None:
                    _cancel(quarantine)
                self.forget(oldest)

    def came(self, agent_id: str) -> None:
        """An agent is there (again)."""
        self._away.pop(agent_id, None)
        self.probe_now(agent_id)

    def forget(self, subject: Subject) -> None:
        """It is as one that has never failed."""
        record = self._records.pop(subject, None)
        if record is not None:
            _cancel(record)
        if isinstance(subject, str):
            self._resting.discard(subject)

    def close(self) -> None:
        for record in self._records.values():
            _cancel(record)
        for quarantine in self._quarantined.values():
            _cancel(quarantine)

    # Inside

    def _next_epoch(self) -> int:
        self.epoch += 1
        return self.epoch

    def _settle(self, subject: Subject, record: _Record, before: str = "") -> None:
        """Bring what is kept in line with its breaker, and tell of a state that is not the one ``before``."""
        breaker = record.breaker
        if breaker.is_blank:
            self.forget(subject)
        elif isinstance(subject, str):
            if breaker.allows:
                self._resting.discard(subject)
            else:
                self._resting.add(subject)
        if not before or breaker.state == before:
            return
        _cancel(record)
        if breaker.state == "open":
            trips = self._config.quarantine_trips
            if isinstance(subject, str) and trips and breaker.trips >= trips:
                self._begin_quarantine(subject, record)
            else:
                record.timer = self._clock.call_later(breaker.until - self._clock.now(), self._recover, subject, record)
        self._changed(subject)

    def _recover(self, subject: Subject, record: _Record) -> None:
        # The clock of a timer may be a little early.
        record.breaker.recover(max(self._clock.now(), record.breaker.until))
        self._settle(subject, record, "open")

    def _begin_quarantine(self, agent_id: str, record: _Record) -> None:
        if agent_id in self._quarantined:
            return
        reason = f"its breaker has opened {record.breaker.trips} times: {_told(record.evidence)}"
        quarantine = self._quarantined[agent_id] = _Quarantine(reason, self._config.quarantine_probe)
        self._probe_later(agent_id, quarantine)

    def _probe_later(self, agent_id: str, quarantine: _Quarantine) -> None:
        _cancel(quarantine)
        quarantine.until = self._clock.now() + quarantine.pause
        quarantine.timer = self._clock.call_later(quarantine.pause, self._send_probe, agent_id)
        quarantine.pause = min(2 * quarantine.pause, max(LONGEST_PROBE_PAUSE, self._config.quarantine_probe))

    def _send_probe(self, agent_id: str) -> None:
        quarantine = self._quarantined[agent_id]
        quarantine.timer = None
        quarantine.probes += 1
        self._probe(agent_id)


def _told(evidence: Counter[str]) -> str:
    return ", ".join(f"{number} × {code}" for code, number in evidence.most_common())


def _cancel(waits: _Record | _Quarantine) -> None:
    if waits.timer is not None:
        waits.timer.cancel()
        waits.timer = None
