"""What follows the end of an attempt: the task ends, goes back to the queue, is resumed elsewhere, or is hedged."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import msgspec

from anywire import errors
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.event_bus import EventBus
from anywire.identities.end_check import NOT_ADMITTED
from anywire.identity import boot_id
from anywire.messages import Chunk, Progress
from anywire.once_log import OnceLog
from anywire.pipeline.attempts.decide import Budget, Decider, Decision, Fail, FallBack, Hedge, Requeue, Resume, decide
from anywire.pipeline.attempts.fallbacks import Fallbacks
from anywire.pipeline.attempts.open_attempts import OpenAttempts
from anywire.pipeline.attempts.retries import Retries
from anywire.pipeline.attempts.task_ends import TaskEnds
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.health.health import Health
from anywire.pipeline.observation.observation import Observation
from anywire.pipeline.queue.broken_streams import broken_off
from anywire.pipeline.queue.dispatcher import Dispatcher
from anywire.pipeline.tasks.task import Attempt, Task
from anywire.scheduler import Outcome

log = logging.getLogger(__name__)


class AttemptEnds:
    """An `anywire.pipeline.attempts.attempts.AttemptsSink`. ``decider`` says what follows a failed attempt; ``events``
    are held while it is carried out. ``resume_bytes`` is how much text of a stream is kept for resuming it, 0 where
    none is resumed."""

    def __init__(
        self,
        hub_id: str,
        open_attempts: OpenAttempts,
        ends: TaskEnds,
        dispatcher: Dispatcher,
        registry: Registry,
        health: Health,
        decider: Decider,
        counts: Counter[str],
        events: EventBus,
        observation: Observation,
        clock: Clock,
        retries: Retries,
        fallbacks: Fallbacks,
        resume_bytes: int,
    ) -> None:
        self._retries, self._fallbacks, self._resume_bytes = retries, fallbacks, resume_bytes
        self._hub_id, self._open, self._ends, self._dispatcher = hub_id, open_attempts, ends, dispatcher
        self._registry, self._health, self._decider = registry, health, decider
        self._counts, self._events, self._observation, self._clock = counts, events, observation, clock
        self._boot_id = boot_id()
        self._once = OnceLog(log)
        self.by_transport: Counter[str] = Counter()
        """How many attempts were answered over each transport."""
        self.preempted_ended: Callable[[Attempt], None] | None = None
        """Told of a preempted attempt that has ended, before its slot is anybody's."""
        self.waits_again: Callable[[Task], None] | None = None
        """Told of a task that was put back, after what can be sent was sent."""
        self.noting = False
        """Whether an end is being noted in the health of its agent."""

    def attempt_answered(self, attempt: Attempt, final: Chunk) -> None:
        task = attempt.task
        stages = task.stream.stages
        stages.agent_received, stages.engine_started = final.received_ns, final.started_ns
        stages.first_chunk, stages.last_chunk = final.first_ns, final.last_ns
        stages.comparable = attempt.agent.info.boot_id == self._boot_id
        stages.delivered = self._clock.now_ns()
        self.by_transport[attempt.transport] += 1
        task.spent += attempt.used
        if attempt.used > 1:
            task.below += attempt.used - 1
        if not self._health.all_ok:
            self._note_health(attempt, None)
        outcome = self._open.finish(attempt, "")
        self._ends.end(task, "", attempt, outcome, final)

    def attempt_congested(self, attempt: Attempt, error: AnywireError) -> None:
        task = attempt.task
        if task.is_probe:
            self._ends.fail(task, error)
        elif not task.attempts:
            self._observation.task_requeued(task, error, 0.0)
            self._queue_again(task)

    def attempt_ended(self, attempt: Attempt, outcome: Outcome) -> None:
        self._events.hold()
        try:
            self._observation.attempt_ended(attempt, outcome)
            if attempt.reserved_for and self.preempted_ended is not None:
                self.preempted_ended(attempt)
            self._dispatcher.offer_held()
        finally:
            self._events.release()

    def attempt_preempted(self, attempt: Attempt) -> None:
        """Its slot is wanted by an urgent task: it is stopped, and its task waits for another one."""
        task = attempt.task
        self._events.hold()
        try:
            self._open.cancel(attempt, "an urgent task gets its slot")
            task.tried.discard(attempt.agent_id)
            self._observation.task_preempted(task)
            self._queue_again(task)
            self._dispatcher.offer_held()
        finally:
            self._events.release()

    def attempt_failed(self, attempt: Attempt, error: AnywireError, over: bool) -> None:
        """Decide what follows, and do it."""
        self._events.hold()
        try:
            self._attempt_failed(attempt, error, over)
        finally:
            self._events.release()

    def reader_stalled(self, task: Task) -> None:
        self._ends.reader_stalled(task)

    def _attempt_failed(self, attempt: Attempt, error: AnywireError, over: bool) -> None:
        task = attempt.task
        error.task_id, error.agent_id = task.task_id, attempt.agent_id
        self._note_health(attempt, error)
        task.retry_after = error.retry_after = max(task.retry_after, error.retry_after)
        if isinstance(error, errors.Refused):
            # It said so before doing anything: somebody else may take it.
            self._counts["refused"] += 1
            if error.detail_code == NOT_ADMITTED:
                self._once.warn(
                    attempt.agent_id, "agent %s does not let this orchestrator in: %s", attempt.agent_id, error
                )
            self._registry.set_cause(attempt.agent, "refused")
        elif isinstance(error, errors.AgentUnavailable) and over:
            self._registry.set_cause(attempt.agent, "unreachable")
        task.below += attempt.used - 1
        attempt.origin = error.origin
        if over and (attempt.kept_back or attempt.used > 1):
            attempt.settle(self._clock.now_ns())
        others = len(task.attempts) > 1
        decision: Decision = Fail()
        budget: Budget | None = None
        if not others and not task.is_probe:
            if attempt.chunks:
                # It got on: whom it has tried before is as good as any, and no failure was in a row with this one. One
                # that rests goes on with it where all others rest as well.
                task.losses, task.tried = 0, {attempt.agent_id}
            elsewhere = attempt.was_curbed or any(
                self._registry.serving.has_others(
                    key, task.tried if attempt.chunks else task.tried | self._health.resting_agents(key.model)
                )
                for key in task.queued.keys
            )
            models = self._fallbacks.left(task, attempt.model)
            budget = self._retries.budget(task, attempt, elsewhere, models)
            decision = self._decider.decide(task, attempt, error, budget)
            if isinstance(decision, Hedge):
                if not (over or isinstance(error, errors.StreamCorrupted)):
                    self._dispatcher.hedge(task)
                    return
                decision = decide(task, attempt, error, self._health, budget)
            if isinstance(decision, FallBack) and not models:
                decision = Fail()
            if not isinstance(decision, Requeue):
                task.losses += 1
                task.spent += attempt.used
                task.attempts_left -= attempt.used
        outcome: Outcome | None = None
        if over:
            outcome = self._open.finish(attempt, error.code)
        else:
            attempt.code = error.code
            self._open.cancel(attempt, str(error))
        if others:
            if outcome is not None:
                self._observation.attempt_ended(attempt, outcome)
            self._dispatcher.offer_held()
        elif isinstance(decision, Fail) or self._dispatcher.gate_closed:
            shut = self._dispatcher.gate_closed and not isinstance(decision, Fail)
            ending: AnywireError = errors.ShuttingDown("the orchestrator shuts down")
            if not shut:
                repeats = budget is None or budget.repeats
                ending = broken_off(task, attempt, error, self._resume_bytes, repeats)
            ending.task_id = task.task_id
            if budget is not None and isinstance(decision, Fail):
                self._retries.given_up(task, ending, decision, budget)
            if not shut and self._ends.rescue(task, ending):
                if outcome is not None:
                    self._observation.attempt_ended(attempt, outcome)
                self._dispatcher.offer_held()
                return
            self._ends.end(task, ending.code, attempt, outcome, error=ending)
        else:
            if isinstance(decision, Resume):
                task.failure = task.failure or error
            if not isinstance(decision, Requeue):
                self._retries.made(task, error)
            after = 0.0 if isinstance(decision, (Requeue, Hedge)) else decision.after
            if outcome is not None:
                self._observation.attempt_ended(attempt, outcome)
            if isinstance(decision, FallBack):
                self._fallbacks.when_failed(task, attempt.model, error.code)
            self._observation.task_requeued(task, error, after)
            self._queue_again(task, after)
            self._dispatcher.offer_held()
            self._told_to_wait(task)

    def _note_health(self, attempt: Attempt, error: AnywireError | None) -> None:
        """Whoever calls this dispatches afterwards, once the reader has its end. What a probe came to counts when its
        task ends (`anywire.pipeline.orders.probes`)."""
        task = attempt.task
        if task.is_probe:
            return
        self.noting = True
        try:
            self._health.note(
                attempt.place,
                error,
                attempt.epoch,
                (attempt.model, task.submission.kind),
                attempt.is_blameless,
                isinstance(error, errors.AgentLost) and self._registry.has_other_link(attempt.agent, attempt.link),
                attempt.is_from_below,
            )
        finally:
            self.noting = False

    def _queue_again(self, task: Task, after: float = 0.0) -> None:
        """Put a task back whose attempt has ended, ``after`` seconds from now."""
        keys = task.queued.keys
        if task.chunks and len(keys) > 1:
            # What one model began no other one goes on with.
            keys = tuple(key for key in keys if key.model == task.model)
        task.queued = msgspec.structs.replace(task.queued, attempt=task.sent + 1, keys=keys)
        if self._dispatcher.gate_closed:
            self._ends.fail(task, errors.ShuttingDown("the orchestrator shuts down"))
            return
        if task.submission.progress:
            task.stream.progressed(Progress(self._hub_id, task.task_id, task.sent, "queued"))
        if after > 0:
            self._dispatcher.hold(task, "retry")
            task.retry_timer = self._clock.call_later(after, self._retry_now, task)
        else:
            self._dispatcher.put_back(task)
        if task.place != "ended":
            self._ends.absence.check(task)

    def _retry_now(self, task: Task) -> None:
        task.retry_timer = None
        self._dispatcher.put_back(task)
        self._dispatcher.dispatch()
        self._told_to_wait(task)

    def _told_to_wait(self, task: Task) -> None:
        if self.waits_again is not None:
            self.waits_again(task)
