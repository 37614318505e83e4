"""What the pipeline tells about tasks and attempts: events on the bus, and outcomes to strategies that learn, after the
reader of the task concerned has its end.

Each method looks first whether anybody wants to know. What each task causes is made here in one step and not by
`EventBus.publish`, which would pass some twenty fields on twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from time import time as wall_time

import msgspec

from anywire import events
from anywire.boundary import Boundary, label
from anywire.caller import Caller
from anywire.clock import Clock
from anywire.demand import MAX_TOKENS, prefix_hashes
from anywire.errors import AnywireError, Origin
from anywire.event_bus import PUBLISH, EventBus
from anywire.messages import Progress
from anywire.pipeline.observation.kept_decisions import KeptDecisions
from anywire.pipeline.tasks.task import Attempt, Task
from anywire.scheduler import Outcome, Scheduler
from anywire.selector import AgentView, Candidates, Selector

MAX_NAME, MAX_TARGET = 128, 16
"""Characters of a name, and ids of a target, in the events of a command: whoever sends one may name anything."""


_OF_ADMISSION = frozenset((events.TaskAdmitted, events.TaskPrefix, events.TaskFellBack))


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


_decode_usage = msgspec.json.Decoder(_Usage).decode


@lru_cache(maxsize=1)  # of one end several ask
def token_counts(usage: str) -> tuple[int, int]:
    """Tokens of prompt and answer in an OpenAI usage object; zeros where it has none, at most
    `anywire.demand.MAX_TOKENS` where an agent has made them up."""
    try:
        counts = _decode_usage(usage) if usage else _Usage()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0, 0
    return min(max(0, counts.prompt_tokens), MAX_TOKENS), min(max(0, counts.completion_tokens), MAX_TOKENS)


class Observation:
    """An observer that raises is that observer's failure: the others are told all the same."""

    def __init__(
        self,
        bus: EventBus,
        kept: KeptDecisions,
        scheduler: Scheduler,
        selector: Selector,
        boundary: Boundary,
        clock: Clock,
    ) -> None:
        self._kept = kept
        self._bus, self._wanted, self._boundary, self._now_ns = bus, bus.wanted, boundary, clock.now_ns
        self.hold, self.release = bus.hold, bus.release
        """Keep what is told from subscribers, until it is released; see `anywire.event_bus.EventBus.hold`."""
        self._selector_name = label("selector", selector)
        self._secret = secrets.token_bytes(32)
        """By which what is told of prompts says nothing of their texts."""
        self._learning = []
        """Strategies that want to know how attempts end."""
        if type(scheduler).observed is not Scheduler.observed:
            self._learning.append((label("scheduler", scheduler), scheduler.observed))
        if type(selector).observed is not Selector.observed:
            self._learning.append((self._selector_name, selector.observed))
        boundary.listener = self._plugin_failed

    # Tasks

    @property
    def tells_admission(self) -> bool:
        """Whether anybody is told of a task when it was taken in, before it is sent."""
        return not self._wanted.isdisjoint(_OF_ADMISSION)

    def task_admitted(self, task: Task) -> None:
        if events.TaskAdmitted in self._wanted:
            submission, queued = task.submission, task.queued
            deadline_ms = (queued.deadline_ns - queued.received_ns) // 1_000_000 if queued.deadline_ns else 0
            caller = submission.caller
            self._bus.deliver(
                events.TaskAdmitted(
                    id=self._bus.next_id(),
                    at_ns=self._now_ns(),
                    time=wall_time(),
                    tenant=caller.tenant,
                    caller=caller.id,
                    trace=submission.trace,
                    priority=submission.priority,
                    task_id=task.task_id,
                    kind=submission.kind,
                    model=submission.model,
                    stream=submission.stream,
                    session=queued.session,
                    parent=queued.parent,
                    prompt_chars=queued.prompt_chars,
                    deadline_ms=deadline_ms,
                )
            )
        if events.TaskPrefix in self._wanted:
            self._publish(events.TaskPrefix, task, prefix=self._prefix_words(task))

    def _prefix_words(self, task: Task) -> tuple[str, ...]:
        submission = task.submission
        hashes = task.queued.prefix or prefix_hashes(submission.outline or submission.body)
        return tuple([blake2b(each.to_bytes(8), digest_size=8, key=self._secret).hexdigest() for each in hashes])

    def task_held(self, task: Task, why: str) -> None:
        """Tell it once, however often the task is offered in vain."""
        if events.TaskHeld in self._wanted and task.told_why != why:
            task.told_why = why
            self._publish(events.TaskHeld, task, why=why)

    def task_requeued(self, task: Task, error: AnywireError, after_s: float) -> None:
        if events.TaskRequeued in self._wanted:
            attempt = task.sent + 1
            self._publish(events.TaskRequeued, task, attempt=attempt, error=error.code, after_ms=round(after_s * 1000))

    def task_preempted(self, task: Task) -> None:
        if events.TaskPreempted in self._wanted:
            self._publish(events.TaskPreempted, task, attempt=task.sent, times=task.preempted)

    def task_fell_back(self, task: Task, before: str, model: str, code: str) -> None:
        if events.TaskFellBack in self._wanted:
            self._publish(events.TaskFellBack, task, before=before, model=model, error=code)

    def task_dispatched(self, task: Task, agent: AgentView, model: str, candidates: Candidates) -> None:
        choice, task.choice, task.told_why = task.choice, None, ""
        if events.TaskDispatched in self._wanted:
            submission, now_ns = task.submission, self._now_ns()
            decision = self._kept.newest(task)
            caller = submission.caller
            self._bus.deliver(
                events.TaskDispatched(
                    id=self._bus.next_id(),
                    at_ns=now_ns,
                    time=wall_time(),
                    tenant=caller.tenant,
                    caller=caller.id,
                    trace=submission.trace,
                    priority=submission.priority,
                    task_id=task.task_id,
                    attempt=task.sent + 1,
                    agent_id=agent.agent_id,
                    model=model,
                    transport=agent.transport,
                    selector=self._selector_name.removeprefix("selector "),
                    candidates=len(candidates),
                    waited_ms=(now_ns - task.queued.received_ns) / 1e6,
                    scores=dict(choice.scores) if choice is not None else {},
                    reason=choice.reason if choice is not None else "",
                    took_us=decision.took_us if decision is not None else 0.0,
                    considered=decision.considered if decision is not None else (),
                    left_out=decision.left_out if decision is not None else (),
                )
            )

    def task_ended(
        self, task: Task, code: str, message: str, origin: Origin, usage: str, attempts: int, deltas: int
    ) -> None:
        self._kept.task_ended(task, code, message, self._now_ns())
        if events.TaskEnded in self._wanted:
            submission, stream = task.submission, task.stream
            prompt_tokens, tokens = token_counts(usage)
            caller = submission.caller
            self._bus.deliver(
                events.TaskEnded(
                    id=self._bus.next_id(),
                    at_ns=self._now_ns(),
                    time=wall_time(),
                    tenant=caller.tenant,
                    caller=caller.id,
                    trace=submission.trace,
                    priority=submission.priority,
                    task_id=task.task_id,
                    kind=submission.kind,
                    model=submission.model,
                    agent_id=stream.agent_id,
                    transport=stream.transport,
                    attempts=attempts,
                    error=code,
                    message=message,
                    chunks=task.chunks,
                    prompt_chars=task.queued.prompt_chars,
                    prompt_tokens=prompt_tokens,
                    tokens=tokens,
                    stages=stream.stages,
                    session=task.queued.session,
                    parent=task.queued.parent,
                    stream=submission.stream,
                    deltas=deltas,
                    first_ms=(task.first_ns - stream.stages.received) / 1e6 if task.first_ns else 0.0,
                    origin=origin,
                )
            )

    def task_cancelled(self, task: Task, by: Caller) -> None:
        if events.TaskCancelledBy in self._wanted:
            self._publish(events.TaskCancelledBy, task, by=by.id, by_tenant=by.tenant, by_role=by.role)

    # Attempts

    def attempt_sent(self, attempt: Attempt) -> None:
        if events.AttemptSent in self._wanted:
            submission = attempt.task.submission
            caller = submission.caller
            self._bus.deliver(
                events.AttemptSent(
                    id=self._bus.next_id(),
                    at_ns=self._now_ns(),
                    time=wall_time(),
                    tenant=caller.tenant,
                    caller=caller.id,
                    trace=submission.trace,
                    priority=submission.priority,
                    task_id=attempt.task.task_id,
                    attempt=attempt.number,
                    agent_id=attempt.agent_id,
                    incarnation=attempt.incarnation,
                    transport=attempt.transport,
                )
            )

    def attempt_accepted(self, attempt: Attempt) -> None:
        if events.AttemptAccepted in self._wanted:
            self._publish_attempt(events.AttemptAccepted, attempt)

    def attempt_progressed(self, attempt: Attempt, progress: Progress) -> None:
        if events.AttemptProgress in self._wanted:
            self._publish_attempt(events.AttemptProgress, attempt, state=progress.state, detail=progress.detail)

    def attempt_streaming(self, attempt: Attempt) -> None:
        if events.AttemptStreaming in self._wanted:
            first_ms = (attempt.first_ns - attempt.sent_ns) / 1e6
            submission = attempt.task.submission
            caller = submission.caller
            self._bus.deliver(
                events.AttemptStreaming(
                    id=self._bus.next_id(),
                    at_ns=self._now_ns(),
                    time=wall_time(),
                    tenant=caller.tenant,
                    caller=caller.id,
                    trace=submission.trace,
                    priority=submission.priority,
                    task_id=attempt.task.task_id,
                    attempt=attempt.number,
                    agent_id=attempt.agent_id,
                    first_ms=first_ms,
                )
            )

    def attempt_ended(self, attempt: Attempt, outcome: Outcome) -> None:
        # Of a probe strategies learn nothing: they have not chosen it, and nobody asked for it.
        learns = bool(self._learning) and not attempt.task.is_probe
        if not learns and events.AttemptEnded not in self._wanted:
            return
        prompt_tokens, tokens = token_counts(attempt.usage)
        tokens = tokens or attempt.next_seq
        if learns:
            queued = attempt.task.queued
            outcome = msgspec.structs.replace(
                outcome,
                prompt_tokens=prompt_tokens,
                tokens=tokens,
                tenant=queued.caller.tenant,
                session=queued.session,
            )
            for name, observed in self._learning:
                self._boundary.call(name, "observed", observed, outcome, otherwise=None, task_id=outcome.task_id)
        if events.AttemptEnded in self._wanted:
            submission = attempt.task.submission
            caller = submission.caller
            self._bus.deliver(
                events.AttemptEnded(
                    id=self._bus.next_id(),
                    at_ns=self._now_ns(),
                    time=wall_time(),
                    tenant=caller.tenant,
                    caller=caller.id,
                    trace=submission.trace,
                    priority=submission.priority,
                    task_id=attempt.task.task_id,
                    attempt=attempt.number,
                    agent_id=attempt.agent_id,
                    transport=attempt.transport,
                    error=outcome.error,
                    origin=attempt.origin if outcome.error else "",
                    first_ms=outcome.first_ms,
                    total_ms=outcome.total_ms,
                    chunks=outcome.chunks,
                    prompt_tokens=prompt_tokens,
                    tokens=tokens,
                )
            )

    # Commands

    def command_begun(self, target: Sequence[str], name: str, caller: Caller) -> None:
        if events.CommandBegun in self._wanted:
            self._publish_command(events.CommandBegun, target, name, caller)

    def command_ended(self, target: Sequence[str], name: str, caller: Caller, error: str) -> None:
        if events.CommandEnded in self._wanted:
            self._publish_command(events.CommandEnded, target, name, caller, error=error)

    # The orchestrator

    def orchestrator_changed(self, hub_id: str, state: str) -> None:
        self._bus.publish(events.OrchestratorChanged, hub_id=hub_id, state=state)

    # Inside

    def _publish(self, kind: type[events.Event], task: Task, /, **fields: object) -> None:
        submission = task.submission
        caller = submission.caller
        self._bus.publish(
            kind,
            tenant=caller.tenant,
            caller=caller.id,
            trace=submission.trace,
            priority=submission.priority,
            task_id=task.task_id,
            **fields,
        )

    def _publish_command(
        self, kind: type[events.Event], target: Sequence[str], name: str, caller: Caller, /, **fields: object
    ) -> None:
        told = tuple(str(each)[:MAX_NAME] for each in target[:MAX_TARGET])
        who = {"tenant": caller.tenant, "caller": caller.id, "role": caller.role}
        self._bus.publish(kind, target=told, name=str(name)[:MAX_NAME], **who, **fields)

    def _publish_attempt(self, kind: type[events.Event], of: Attempt, /, **fields: object) -> None:
        self._publish(kind, of.task, attempt=of.number, agent_id=of.agent_id, **fields)

    def _plugin_failed(self, plugin: str, call: str, error: str, task_id: str) -> None:
        # A subscriber that fails at this very event, or causes too many, would cause it again.
        if call not in (events.PluginFailure.__name__, PUBLISH):
            self._bus.publish(events.PluginFailure, plugin=plugin, call=call, error=error, task_id=task_id)
