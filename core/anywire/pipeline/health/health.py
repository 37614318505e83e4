"""Health of agents, their links and their models: a breaker for each that has failed, and quarantine for agents that
fail again and again.

A subject is an agent (by id), one of its links (agent id and transport number), or one of its models (`ModelAt`). One
whose breaker does not allow it (`anywire.pipeline.health.breaker`) gets no task while another agent serves the model
(over another link, if it is the link's). An error that concerns the model alone, as its agent says, counts against the
model there, and says nothing of the agent and its other models. Errors that are the request's, refusals and cancels
never count. The loss of an agent is one failure, however many attempts it takes along; the loss of one of several links
is one of the link.

An agent whose breaker has opened ``quarantine_trips`` times is quarantined: no client's task goes there, whoever else
is there. Probes that the pipeline makes up are sent to it (`anywire.pipeline.health.quarantine`), and only one that it
passes ends the quarantine. Quarantine and failures outlast the agent's life: whoever crashes at every task is known
when it is back. What fails below an agent that is an orchestrator opens its breaker too, since others may answer
meanwhile, but never quarantines it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Set

from anywire import errors
from anywire.agent_health import WELL, AgentHealth, HealthState, counted
from anywire.clock import Clock, Timer
from anywire.errors import AnywireError
from anywire.failure_settings import BreakerConfig
from anywire.pipeline.health.breaker import Breaker
from anywire.pipeline.health.failing_models import FailingModels, ModelAt
from anywire.pipeline.health.quarantine import Quarantine, SendProbe

QUARANTINED = "quarantined"
MAX_SAID = 300
"""Characters kept of the message of a subject's last failure."""
REMEMBERED_AWAY = 1024
"""Agents that are gone and whose failures are kept."""

Subject = str | tuple[str, int] | ModelAt


class _Record:
    """``lost_epoch`` is the epoch after the loss that was counted last, ``served`` the model and kind of the task that
    failed last, ``said`` its error's message, ``trips_below`` how many openings are due to failures below it."""

    __slots__ = ("breaker", "evidence", "lost_epoch", "said", "served", "timer", "trips_below")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.evidence: Counter[str] = Counter()
        self.lost_epoch = self.trips_below = 0
        self.served, self.said = ("", ""), ""
        self.timer: Timer | None = None


class Health:
    """``changed(subject)`` is called when the state of a subject changes. ``probe`` sends a probe to a quarantined
    agent; what that came to is told to `probe_ended`. Subjects that have not failed cost nothing."""

    def __init__(
        self,
        clock: Clock,
        changed: Callable[[Subject], None],
        probe: SendProbe,
        config: BreakerConfig,
    ) -> None:
        self._clock, self._changed, self._config = clock, changed, config
        self._records: dict[Subject, _Record] = {}
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

    @property
    def all_ok(self) -> bool:
        """Whether nobody has failed lately: nothing need be asked then."""
        return not self._records

    def state(self, subject: Subject) -> HealthState:
        if subject in self._quarantine:
            return "quarantined"
        record = self._records.get(subject)
        return record.breaker.state if record is not None else "closed"

    def cause(self, subject: Subject) -> str:
        """The code that its failures had most often since it was well, empty when there were none."""
        record = self._records.get(subject)
        return record.evidence.most_common(1)[0][0] if record is not None and record.evidence else ""

    def said(self, subject: Subject) -> str:
        """The message of its last failure, empty when there was none."""
        record = self._records.get(subject)
        return record.said if record is not None else ""

    def report(self, subject: Subject) -> AgentHealth:
        """How an agent does, its links and models not counted, or a link, or a model."""
        record = self._records.get(subject)
        if record is None:
            return WELL
        breaker = record.breaker
        reason, probes, retry_in = "", 0, 0.0
        if isinstance(subject, str) and subject in self._quarantine:
            reason, probes, retry_in = self._quarantine.report(subject)
        elif breaker.state != "closed":
            reason = counted(record.evidence)
            if breaker.state == "open":
                retry_in = max(0.0, breaker.until - self._clock.now())
        return AgentHealth(self.state(subject), "", reason, dict(record.evidence), breaker.trips, probes, retry_in)

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
        ``error``, or None for an answer. ``is_blameless``: an operator caused it. ``is_linked``: its agent is
        there over another link. ``is_from_below``: the error arose below the agent, which is an orchestrator."""
        agent_id, model = place[0], ModelAt(place[0], served[0])
        if error is None:
            self.succeeded(model, epoch)
        elif not is_blameless and error.blames == "model" and served[0]:
            self.failed(model, error.code, epoch, served, said=error.message)
            self.neutral(agent_id, epoch)
            self.neutral(place, epoch)
            return
        else:
            self.neutral(model, epoch)
        if error is None:
            self._lost_links.discard(agent_id)
            self.succeeded(agent_id, epoch)
            self.succeeded(place, epoch)
        elif is_from_below and not is_blameless and error.blames:
            self.failed(agent_id, error.code, epoch, served, said=error.message, is_from_below=True)
            self.neutral(place, epoch)
        elif not is_blameless and isinstance(error, errors.AgentLost):
            if is_linked:
                self._lost_links.add(agent_id)
                self.failed(place, error.code, epoch, is_loss=True, said=error.message)
                self.neutral(agent_id, epoch)
            else:
                self._lost_links.discard(agent_id)
                self.failed(agent_id, error.code, epoch, served, is_loss=True, said=error.message)
                self.neutral(place, epoch)
        elif not is_blameless and error.blames == "agent":
            self.failed(agent_id, error.code, epoch, served, said=error.message)
            self.neutral(place, epoch)
        elif not is_blameless and error.blames == "link":
            self.failed(place, error.code, epoch, said=error.message)
            self.neutral(agent_id, epoch)
        else:
            self.neutral(agent_id, epoch)
            self.neutral(place, epoch)

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
            record = self._records[subject] = _Record(Breaker(self._config, self._next_epoch))
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
            record.evidence[code] += 1
            record.served, record.said = served, said[:MAX_SAID]
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
            self.failed(agent_id, errors.AgentLost.code, self.epoch, is_loss=True)
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
        if record is not None:
            _cancel(record)
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
            _cancel(record)

    # Inside

    def _next_epoch(self) -> int:
        self.epoch += 1
        return self.epoch

    def _settle(self, subject: Subject, record: _Record, before: str = "", is_from_below: bool = False) -> None:
        """Bring what is kept in line with its breaker, and tell of a state that is not the one ``before``."""
        breaker = record.breaker
        if breaker.is_blank:
            self.forget(subject)
        elif isinstance(subject, str):
            _keep(self._resting, subject, not breaker.allows)
            _keep(self._doubtful, subject, breaker.is_doubtful)
        elif isinstance(subject, ModelAt):
            self._models.settle(subject, not breaker.allows, breaker.is_doubtful)
        if not before or breaker.state == before:
            return
        _cancel(record)
        if breaker.state == "closed":
            record.evidence.clear()
            record.said = ""
        elif breaker.state == "open":
            trips = self._config.quarantine_trips
            if breaker.trips == 1:
                record.trips_below = 0  # the earlier ones are forgotten
            record.trips_below += is_from_below
            is_own = not is_from_below and breaker.trips - record.trips_below >= trips
            if isinstance(subject, str) and trips and is_own:
                times = "once" if breaker.trips == 1 else f"{breaker.trips} times"
                reason = f"its breaker has opened {times} ({counted(record.evidence)})"
                self._quarantine.begin(subject, reason, breaker.trips, record.served)
            elif not self._closed:
                pause = breaker.until - self._clock.now()
                record.timer = self._clock.call_later(pause, self._recover, subject, record)
        self._changed(subject)

    def _recover(self, subject: Subject, record: _Record) -> None:
        record.timer = None
        # The clock of a timer may be a little early.
        record.breaker.recover(max(self._clock.now(), record.breaker.until))
        self._settle(subject, record, "open")


def _keep(kept: set[str], agent_id: str, belongs: bool) -> None:
    if belongs:
        kept.add(agent_id)
    else:
        kept.discard(agent_id)


def _cancel(record: _Record) -> None:
    if record.timer is not None:
        record.timer.cancel()
        record.timer = None
