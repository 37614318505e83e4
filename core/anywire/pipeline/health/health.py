"""Health of agents, their links and their models: a breaker for each that has failed, and quarantine for agents that
fail again and again.

A subject is an agent (by id), one of its links (agent id and transport number), or one of its models (`ModelAt`). One
whose breaker does not allow it (`anywire.pipeline.health.breaker`) gets no task while another agent serves the model
(over another link, if it is the link's). `anywire.pipeline.health.blame` decides what a failure counts against.

An agent whose breaker has opened ``quarantine_trips`` times is quarantined: no client's task goes there, whoever else
is there. Probes that the pipeline makes up are sent to it (`anywire.pipeline.health.quarantine`), and only one that it
passes ends the quarantine. Quarantine and failures outlast the agent's life: whoever crashes at every task is known
when it is back. What fails below an agent that is an orchestrator opens its breaker too, since others may answer
meanwhile, but never quarantines it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Set

import msgspec

from anywire.agent_health import WELL, AgentHealth, HealthState
from anywire.clock import Clock
from anywire.errors import AgentLost, AnywireError
from anywire.failure_settings import BreakerConfig
from anywire.pipeline.health.blame import blame_for
from anywire.pipeline.health.breaker import Breaker
from anywire.pipeline.health.failing_models import FailingModels, ModelAt, keep
from anywire.pipeline.health.health_record import HealthRecord
from anywire.pipeline.health.quarantine import Quarantine, SendProbe

QUARANTINED = "quarantined"
REMEMBERED_AWAY = 1024
"""Agents that are gone and whose failures are kept."""

Subject = str | tuple[str, int] | ModelAt


class Health:
    """``changed(subject)`` is called when the state of a subject changes. ``probe`` sends a probe to a quarantined
    agent; what that came to is told to `probe_ended`. Subjects that have not failed cost nothing."""

    def __init__(
        self, clock: Clock, changed: Callable[[Subject], None], probe: SendProbe, config: BreakerConfig
    ) -> None:
        self._clock, self._changed, self._config = clock, changed, config
        self._records: dict[Subject, HealthRecord] = {}
        self.all_ok = True
        """Whether nobody has failed lately: nothing need be asked then."""
        self._quarantine = Quarantine(clock, config, probe)
        self._away: OrderedDict[str, None] = OrderedDict()
        self._resting: set[str] = set()
        self._doubtful: set[str] = set()
        self._models = FailingModels()
        self._lost_links: set[str] = set()
        """Agents that have answered nothing since one of several links was lost with attempts on it."""
        self._closed = False
        self.epoch = 0
        """What an attempt that is sent now is to carry; see `anywire.pipeline.health.breaker`."""

    def state(self, subject: Subject) -> HealthState:
        if subject in self._quarantine:
            return "quarantined"
        record = self._records.get(subject)
        return record.breaker.state if record is not None else "closed"

    def cause(self, subject: Subject) -> str:
        """The code that its failures had most often since it was well, empty when there were none."""
        record = self._records.get(subject)
        return record.cause if record is not None else ""

    def said(self, subject: Subject) -> str:
        """The message of its last failure, empty when there was none."""
        record = self._records.get(subject)
        return record.said if record is not None else ""

    def report(self, subject: Subject) -> AgentHealth:
        """How an agent does, its links and models not counted, or a link, or a model."""
        record = self._records.get(subject)
        if record is None:
            return WELL
        report = record.report(self._clock.now())
        if not isinstance(subject, str) or subject not in self._quarantine:
            return report
        reason, probes, retry_in = self._quarantine.report(subject)
        return msgspec.structs.replace(report, state="quarantined", reason=reason, probes=probes, retry_in_s=retry_in)

    def resting(self, subject: Subject) -> bool:
        """Whether it should get no task now: it has failed and rests, or as many probes as may are under way."""
        record = self._records.get(subject)
        return record is not None and not record.breaker.allows

    def resting_agents(self, model: str = "") -> Set[str]:
        """The agents that are `resting`, and those at which ``model`` is."""
        of_model = self._models.resting(model)
        return self._resting | of_model if of_model else self._resting

    def doubtful_agents(self, model: str = "") -> Set[str]:
        """Those whose breaker is not closed, and those whose last attempt failed; and those where that is so of
        ``model``."""
        of_model = self._models.doubtful(model)
        return self._doubtful | of_model if of_model else self._doubtful

    def models(self, agent_id: str) -> dict[str, HealthState]:
        """The models of an agent whose breaker is not closed."""
        states = ((subject.model, self.state(subject)) for subject in self._models.of(agent_id))
        return {model: state for model, state in states if state != "closed"}

    def is_quarantined(self, agent_id: str) -> bool:
        return agent_id in self._quarantine

    # What attempts come to

    def sent(self, subject: Subject) -> None:
        """A task is on its way to it."""
        record = self._records.get(subject)
        if record is not None:
            record.breaker.sent()
            self._settle(subject, record)

    def note(
        self,
        place: tuple[str, int],
        error: AnywireError | None,
        epoch: int,
        served: tuple[str, str] = ("", ""),
        is_blameless: bool = False,
        is_linked: bool = False,
        is_from_below: bool = False,
    ) -> None:
        """An attempt of ``epoch``, sent over the link ``place`` for ``served``, a model and a kind, ended with
        ``error``, or None for an answer. See `anywire.pipeline.health.blame.blame_for` for the rest."""
        agent_id, model = place[0], ModelAt(place[0], served[0])
        if error is None:
            self._lost_links.discard(agent_id)
            for subject in (model, agent_id, place):
                self.succeeded(subject, epoch)
            return
        blame = blame_for(error, served[0], is_blameless, is_linked, is_from_below)
        if blame.is_loss:
            keep(self._lost_links, agent_id, blame.whom == "link")
        blamed = {"agent": agent_id, "link": place, "model": model}.get(blame.whom)
        # Of agent and link the blamed one is first: it rests before the other may get a task again.
        for subject in (model, place, agent_id) if blamed == place else (model, agent_id, place):
            if subject == blamed:
                self.failed(subject, error.code, epoch, served, blame.is_loss, error.message, blame.is_from_below)
            else:
                self.neutral(subject, epoch)

    def succeeded(self, subject: Subject, epoch: int) -> None:
        record = self._records.get(subject)
        if record is None or subject in self._quarantine:
            return
        before = record.breaker.state
        record.breaker.succeeded(self._clock.now(), epoch)
        self._settle(subject, record, before)

    def failed(
        self,
        subject: Subject,
        code: str,
        epoch: int,
        served: tuple[str, str] = ("", ""),
        is_loss: bool = False,
        said: str = "",
        is_from_below: bool = False,
    ) -> None:
        """One more failure, whose error ``said`` something. ``is_loss``: the agent or link was lost, with all attempts
        that had been sent. ``is_from_below``: it quarantines nobody."""
        if not self._config.errors or subject in self._quarantine:
            return
        record = self._records.get(subject)
        if record is None:
            record = self._records[subject] = HealthRecord(Breaker(self._config, self._next_epoch))
            self.all_ok = False
            if isinstance(subject, ModelAt) and (oldest := self._models.add(subject)) is not None:
                self.forget(oldest)
                self._changed(oldest)
        if is_loss:
            if epoch < record.lost_epoch:
                self.neutral(subject, epoch)
                return
            record.lost_epoch = self._next_epoch()
        before = record.breaker.state
        if record.breaker.failed(self._clock.now(), epoch):
            record.add_failure(code, served, said)
        self._settle(subject, record, before, is_from_below)

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

    def probe_ended(self, agent_id: str, passed: bool | None) -> None:
        """A probe of a quarantined agent has ended: was it passed, or None where that is not known? Call it once for
        each that was sent."""
        if self._quarantine.ended(agent_id, passed):
            record = self._records[agent_id]
            before = record.breaker.state
            record.breaker.close(self._clock.now())
            self._settle(agent_id, record, before)

    def probe_now(self, agent_id: str) -> None:
        """Do not wait for the time of the next probe: somebody says that the agent is well."""
        self._quarantine.probe_now(agent_id)

    # Coming and going

    def gone(self, agent_id: str) -> None:
        """An agent is gone. What it has done wrong is kept for the time when it is back, what its models have is not:
        it starts them anew."""
        for model in self._models.of(agent_id):
            self.forget(model)
        if agent_id in self._lost_links:
            # The first of its links to break had all the attempts: what was lost is the agent.
            self._lost_links.discard(agent_id)
            self.failed(agent_id, AgentLost.code, self.epoch, is_loss=True)
        self._quarantine.gone(agent_id)
        if agent_id not in self._records:
            return
        self._away[agent_id] = None
        self._away.move_to_end(agent_id)
        if len(self._away) > REMEMBERED_AWAY:
            oldest, _ = self._away.popitem(last=False)
            self._quarantine.forget(oldest)
            self.forget(oldest)
            self._changed(oldest)

    def came(self, agent_id: str) -> None:
        """An agent is there (again)."""
        self._away.pop(agent_id, None)
        self._quarantine.came(agent_id)

    def ready(self, agent_id: str) -> None:
        """An agent has become ready to take tasks."""
        self._quarantine.ready(agent_id)

    def forget(self, subject: Subject) -> None:
        """It is as one that has never failed. Tells nobody."""
        record = self._records.pop(subject, None)
        self.all_ok = not self._records
        if record is not None:
            record.cancel_timer()
        if isinstance(subject, str):
            for kept in (self._resting, self._doubtful):
                kept.discard(subject)
        elif isinstance(subject, ModelAt):
            self._models.discard(subject)

    def close(self) -> None:
        """Set no timer any more."""
        self._closed = True
        self._quarantine.close()
        for record in self._records.values():
            record.cancel_timer()

    # Inside

    def _next_epoch(self) -> int:
        self.epoch += 1
        return self.epoch

    def _settle(self, subject: Subject, record: HealthRecord, before: str = "", is_from_below: bool = False) -> None:
        """Bring what is kept in line with its breaker, and tell of a state that is not the one ``before``."""
        breaker = record.breaker
        if breaker.is_blank:
            self.forget(subject)
        elif isinstance(subject, str):
            keep(self._resting, subject, not breaker.allows)
            keep(self._doubtful, subject, breaker.is_doubtful)
        elif isinstance(subject, ModelAt):
            self._models.settle(subject, not breaker.allows, breaker.is_doubtful)
        if not before or breaker.state == before:
            return
        record.cancel_timer()
        if breaker.state == "closed":
            record.clear_failures()
        elif breaker.state == "open":
            trips = self._config.quarantine_trips
            own_trips = record.count_trip(is_from_below)
            if isinstance(subject, str) and trips and own_trips >= trips:
                self._quarantine.begin(subject, record.trips_told, breaker.trips, record.served)
            elif not self._closed:
                pause = breaker.until - self._clock.now()
                record.timer = self._clock.call_later(pause, self._recover, subject, record)
        self._changed(subject)

    def _recover(self, subject: Subject, record: HealthRecord) -> None:
        record.timer = None
        # The clock of a timer may be a little early.
        record.breaker.recover(max(self._clock.now(), record.breaker.until))
        self._settle(subject, record, "open")
