"""Attempts on their way to the agents: sending, credit, and links that are lost. What comes back is taken in by
`anywire.pipeline.intake.incoming`."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Protocol

import msgspec

from anywire import errors
from anywire.boundary import Boundary
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.lease import AwakeTime
from anywire.messages import Cancel, Chunk, Credit, Progress, TaskRequest
from anywire.pipeline.attempts.hedging import Hedging
from anywire.pipeline.attempts.open_attempts import OpenAttempts
from anywire.pipeline.attempts.progress import ProgressSink, ProgressWatch
from anywire.pipeline.attempts.retries import Retries
from anywire.pipeline.fleet.ends import Ends
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.fleet.rooms import Rooms
from anywire.pipeline.health.failing_models import ModelAt
from anywire.pipeline.health.health import Health, Subject
from anywire.pipeline.observation.observation import Observation
from anywire.pipeline.tasks.task import Attempt, Task
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import Outcome
from anywire.selector import AgentView
from anywire.submission import Hints
from anywire.task_stream import TaskStream
from anywire.tracing import Tracing
from anywire.transport import Hub, Plane

REMEMBERED_LINKS = 256

_encode = msgspec.json.Encoder().encode


def _subjects(attempt: Attempt) -> tuple[Subject, ...]:
    """Whose health an attempt may say something of."""
    return attempt.agent_id, attempt.place, ModelAt(attempt.agent_id, attempt.model)


def _hints_text(hints: Hints) -> str:
    return _encode(dict(hints)).decode()


class AttemptsSink(ProgressSink, Protocol):
    """What the pipeline is told of its attempts."""

    def attempt_answered(self, attempt: Attempt, final: Chunk) -> None:
        """Its last chunk came; the attempt has ended. Events are held."""
        ...

    def attempt_congested(self, attempt: Attempt, error: AnywireError) -> None:
        """Nothing was sent for want of room; the agent is no candidate until there is some."""
        ...

    def attempt_ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """A cancelled attempt has ended at its agent, and its slot is free."""
        ...


class Attempts:
    """Begins attempts, credits what is read of them, and ends those whose link is lost."""

    def __init__(
        self,
        hub_id: str,
        hubs: Ends[Hub],
        open_attempts: OpenAttempts,
        registry: Registry,
        health: Health,
        boundary: Boundary,
        sink: AttemptsSink,
        awake: AwakeTime,
        counts: Counter[str],
        config: PipelineConfig,
        observation: Observation,
        plane: Plane,
        retries: Retries,
        hedging: Hedging | None,
        tracing: Tracing,
    ) -> None:
        self._retries, self._hedging, self._tracing = retries, hedging, tracing
        self._observation = observation
        self._hub_id, self._hubs, self._registry, self._health = hub_id, hubs, registry, health
        self._boundary, self._sink, self._awake, self._counts, self._config = boundary, sink, awake, counts, config
        self._clock: Clock = awake.clock
        self._window = config.window
        self._shares_budget = plane == "agent"
        """Whether agents are told how many attempts are left: a client leaves that to its orchestrators."""
        self._open = open_attempts
        self.open = open_attempts.by_key
        """By task and number; cancelled ones until they have ended at their agent."""
        self._abandoned: OrderedDict[tuple[str, int, int], list[Cancel]] = OrderedDict()
        self._rooms = Rooms(registry, boundary, self._clock, counts)
        self._progress = ProgressWatch(self.open, awake, counts, config, sink)

    # Towards the agents

    def send(self, task: Task, agent: AgentView, model: str) -> None:
        """Begin an attempt with one of the task's models; the sink hears how it ends, also when it ends here."""
        clock, stream, submission = self._clock, task.stream, task.submission
        now = clock.now_ns()
        link, lease = self._registry.acquire(agent)
        task.sent = number = task.sent + 1
        attempt = Attempt(task, number, agent, model, link, self._window, now)
        attempt.lease, attempt.epoch = lease, self._health.epoch
        attempt.is_hedge = attempt.in_vain = bool(task.attempts)
        if task.retry_budget is None and not task.is_probe:
            self._retries.begin(task, now)
        told = 0
        if self._shares_budget or submission.attempts_left:
            told = self._retries.attempts_told(attempt, now)
        agent_id = attempt.agent_id
        task.place = "running"
        task.attempts[number] = attempt
        task.tried.add(agent_id)
        if task.leader is None:
            task.leader = attempt
            task.agent_id = agent_id
            stream.stages.selected = now
        queued = task.queued
        uses_servers = bool(queued.keys[0].needs) and queued.key.uses_servers
        request = TaskRequest(
            self._hub_id,
            task.task_id,
            number,
            submission.kind,
            model,
            submission.body,
            submission.stream,
            task.text if task.kept is not None else "",
            submission.priority,
            max(1, (queued.deadline_ns - now) // 1_000_000) if queued.deadline_ns else 0,
            self._window,
            submission.hops,
            self._tracing.attempt(task.task_id, number, submission.trace) if submission.trace else "",
            submission.progress or self._config.first_token_timeout > 0 or uses_servers,
            told,
            submission.caller.tenant,
            queued.session,
            queued.parent,
            queued.policy,
            _hints_text(submission.hints) if submission.hints else "",
            queued.prefer,
            queued.avoid,
        )
        self._open.add(attempt)
        if not self._health.all_ok and not task.is_probe:
            self._tell_health(attempt)
        self._progress.watch(attempt)
        hub = self._hubs.ends[link]
        # Before the call and not after it: the agent may have the task before `send` returns.
        attempt.sent_ns = clock.now_ns()
        if task.leader is attempt:
            stream.stages.sent = attempt.sent_ns
        try:
            if hub is None:
                raise errors.AgentUnavailable(f"the transport {attempt.transport} is not open")
            hub.send(agent_id, request)
        except errors.Congested as error:
            self._open.finish(attempt, None)
            self._counts["congested"] += 1
            if hub is not None:
                self._rooms.wait(hub, agent)
            self._say_nothing_of_health(attempt)
            self._sink.attempt_congested(attempt, error)
        except AnywireError as error:
            self._sink.attempt_failed(attempt, error, True)
        except Exception as error:
            self._boundary.failed(f"transport {attempt.transport}", "send", error, task.task_id)
            # Its own words are for the log: they may name tasks of other clients.
            what = f"the transport {attempt.transport} failed: it raised {type(error).__name__}"
            failure = errors.AgentUnavailable(what, phase="maybe_sent")
            self._sink.attempt_failed(attempt, failure, True)
        else:
            self._rooms.found(agent_id)
            self._observation.attempt_sent(attempt)
            if attempt.is_hedge:
                self._counts["hedges"] += 1
            if self._hedging is not None:
                self._hedging.sent(attempt)
            if submission.progress:
                stream.progressed(Progress(self._hub_id, task.task_id, number, "running"))

    def end_cancelled(self, attempt: Attempt) -> None:
        """A cancelled attempt has ended at its agent. What it was given up for, other than a cancel, was noted then."""
        attempt.task.below += attempt.used - 1
        outcome = self._open.finish(attempt, attempt.code)
        if attempt.code == "cancelled":
            self._say_nothing_of_health(attempt)
        if outcome is not None:
            self._sink.attempt_ended(attempt, outcome)

    def was_read(self, task: Task, stream: TaskStream, chunks: int) -> None:
        """The reader took so many chunks: the agent may send as many more, told in halves of the window."""
        task.stalled_due = 0.0
        attempt = task.leader
        if attempt is None:
            return
        attempt.unread_credit += chunks
        if attempt.unread_credit * 2 < self._window:
            if attempt.outstanding <= 0 and stream.waiting:
                task.stalled_due = self._awake.now() + self._config.reader_timeout
            return
        credit, attempt.unread_credit = attempt.unread_credit, 0
        if attempt.outstanding <= 0:
            attempt.moved = True  # it could send nothing: its silence begins now
        attempt.outstanding += credit
        self._open.tell(attempt, Credit(self._hub_id, task.task_id, attempt.number, credit))

    def close(self) -> None:
        self._rooms.close()
        self._progress.close()

    # Links that come and go

    def link_joined(self, agent: AgentView, link: int) -> None:
        """A paused agent may be back with attempts that were given up meanwhile: stop them."""
        hub = self._hubs.ends[link]
        for cancel in self._abandoned.pop((agent.agent_id, agent.info.incarnation, link), ()):
            self._open.tell_over(hub, agent.agent_id, cancel)

    def link_lost(self, agent: AgentView, link: int, reason: str) -> None:
        """End every attempt on that link."""
        self._rooms.found(agent.agent_id)
        hit = self._open.on_link(agent.agent_id, link, agent.info.incarnation)
        if hit:
            self._end_all(hit, agent, link, reason)
        self._open.link_ended(agent.agent_id, link)

    def _end_all(self, hit: list[Attempt], agent: AgentView, link: int, reason: str) -> None:
        """End the attempts on a link that is lost; they are cancelled when it is there again."""
        cancels = [Cancel(self._hub_id, each.task.task_id, each.number, "link lost") for each in hit]
        self._abandoned[agent.agent_id, agent.info.incarnation, link] = cancels
        if len(self._abandoned) > REMEMBERED_LINKS:
            self._abandoned.popitem(last=False)
        for attempt in hit:
            if attempt.state == "ended":
                continue
            if attempt.cancelled:
                self.end_cancelled(attempt)
                continue
            begun = attempt.task.chunks
            what = "while it streamed the answer" if begun else "before it answered"
            message = f"agent {agent.agent_id} was lost over {attempt.transport} {what}: {reason}"
            error = errors.AgentLost(message, phase="streaming" if begun else "maybe_sent")
            self._sink.attempt_failed(attempt, error, True)

    # Inside

    def _tell_health(self, attempt: Attempt) -> None:
        """A task is being sent: whoever is half-open may have got all that it is tried with."""
        health = self._health
        for subject in _subjects(attempt):
            health.sent(subject)
        if health.resting(attempt.place):
            self._registry.health_changed(attempt.agent_id)

    def _say_nothing_of_health(self, attempt: Attempt) -> None:
        """It ends in a way that says nothing of its agent, link and model: where it was one of the few that these are
        tried with, another one may be sent."""
        health = self._health
        if not health.all_ok and not attempt.task.is_probe:
            for subject in _subjects(attempt):
                health.neutral(subject, attempt.epoch)
