"""Tasks that have not ended, and the one place where they end: answered, failed, cancelled, out of time, or with nobody
to serve them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from anywire import errors
from anywire.access import KEY_GONE
from anywire.caller import Caller
from anywire.clock import Clock
from anywire.demand import CHARS_PER_TOKEN
from anywire.errors import AnywireError
from anywire.messages import Chunk
from anywire.pipeline.attempts.open_attempts import OpenAttempts
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.observation.observation import Observation, token_counts
from anywire.pipeline.queue.absence import Absence
from anywire.pipeline.queue.admission import Admission
from anywire.pipeline.queue.dispatcher import Dispatcher
from anywire.pipeline.queue.waiting import Waiting
from anywire.pipeline.services.service_answers import ServiceAnswers
from anywire.pipeline.tasks.deadlines import Deadlines
from anywire.pipeline.tasks.limits import CallerLimits, Share
from anywire.pipeline.tasks.task import Attempt, Task
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import Outcome
from anywire.task_stream import TaskStream

COUNTED_ONLY = frozenset(("tokenize", "detokenize"))
"""Kinds of tasks for which no model reads a token: counting what a prompt would use uses nothing of the day's."""
BY_CLIENT = frozenset(("cancelled", "reader_stalled", "deadline_exceeded", "unauthenticated"))
"""Ends for which a client is the reason: an agent has read the prompt in vain."""


def _ignore(stream: TaskStream, chunks: int) -> None:
    """Reading what is left of an ended task credits nobody."""


class TaskEnds:
    """Keeps the tasks that have not ended and ends each of them exactly once. Attempts of it that are still open are
    cancelled; then dispatcher, services and observers are told."""

    def __init__(
        self,
        open_attempts: OpenAttempts,
        dispatcher: Dispatcher,
        services: ServiceAnswers,
        registry: Registry,
        admission: Admission,
        limits: CallerLimits,
        waiting: Waiting,
        observation: Observation,
        clock: Clock,
        config: PipelineConfig,
    ) -> None:
        self._open, self._dispatcher, self._services, self._limits = open_attempts, dispatcher, services, limits
        self._waiting = waiting
        self._observation, self._clock, self._config = observation, clock, config
        self.tasks: dict[str, Task] = {}
        """Those that have not ended, oldest first."""
        self.outcomes: Counter[str] = Counter()
        """How many ended with which error's code, ``answered`` without one; probes are not counted."""
        self.deadlines = Deadlines(clock, config.deadline, self.give_up)
        self.absence = Absence(clock, config, registry, admission, self.fail)
        self.probe_ended: Callable[[Task, Attempt | None, AnywireError | None], None] | None = None
        """Told of each probe that has ended, with its last attempt and its error."""
        self._idle: asyncio.Event | None = None
        """Set when no task is left, once somebody waits for that."""

    def add(self, task: Task, deadline: float) -> None:
        """Take a new task in, which may take ``deadline`` seconds."""
        self.tasks[task.task_id] = task
        self.deadlines.add(task, deadline)

    def find(self, task_id: str, caller: Caller) -> Task | None:
        """A task that has not ended and that ``caller`` may end."""
        task = self.tasks.get(task_id)
        return task if task is not None and caller.may_end(task.submission.caller) else None

    async def all_ended(self, within: float) -> None:
        """Wait until every task has ended, at most ``within`` seconds."""
        if self.tasks and within > 0:
            self._idle = self._idle or asyncio.Event()
            expired = self._clock.call_later(within, self._idle.set)
            await self._idle.wait()
            expired.cancel()

    def end(
        self,
        task: Task,
        code: str,
        attempt: Attempt | None = None,
        outcome: Outcome | None = None,
        final: Chunk | None = None,
        error: AnywireError | None = None,
    ) -> None:
        """The one place where a task ends; ``code`` is its error's, empty for an answer. The reader has its end before
        any plugin, hook or listener runs."""
        del self.tasks[task.task_id]
        was_waiting = task.place in ("queued", "held")
        task.place = "ended"
        if code == errors.DeadlineExceeded.code and task.leader is not None:
            self._waiting.given_up(task.leader.model, (self._clock.now_ns() - task.leader.sent_ns) / 1e9)
        if task.agent_timer is not None:
            self.absence.end(task)
        if task.wait is not None:
            self._waiting.ends(task, False)
        task.cancel_timers()
        self.deadlines.remove(task)
        if task.retry_budget is not None:
            task.retry_budget.end()
        if task.submission.stream:
            task.stream.on_read(_ignore)
        if not task.is_probe:
            self.outcomes[code or "answered"] += 1
        if task.share is not None:
            self._limits.end(task.share, _tokens(task, task.share, attempt or task.leader, code, final))
        task.stream.attempts = (task.stream.attempts or task.sent) + task.below
        task.stream.spent = task.spent + bool(task.attempts)  # a hedge counts as none
        if final is not None:
            task.stream.push(final)
        elif error is not None:
            if task.fell_from and code not in BY_CLIENT:
                _name_models(task, error)
            task.stream.fail(error)
        for other in list(task.attempts.values()) if task.attempts else ():
            self._open.cancel(other, str(error) if error is not None else "the task has ended")
        if self._idle is not None and not self.tasks:
            self._idle.set()
        if was_waiting:
            self._dispatcher.remove(task)
        if self._services.concerned:
            self._services.ended(task, code)
        if attempt is not None and outcome is not None:
            if not code:
                self._waiting.answered(attempt.model, outcome.total_ms / 1e3, outcome.tokens)
            self._observation.attempt_ended(attempt, outcome)
        self._observation.task_ended(
            task,
            code,
            str(error) if error is not None else "",
            error.origin if error is not None else "",
            final.usage if final is not None else "",
            task.sent + task.below,
            attempt.next_seq if attempt is not None else 0,
        )
        if task.is_probe and self.probe_ended is not None:
            self.probe_ended(task, attempt, error)
        self._dispatcher.offer_held()

    def fail(self, task: Task, error: AnywireError) -> None:
        """End a task with an error, unless a service is to be asked for an answer in its place. Does nothing when it
        has ended."""
        if task.place == "ended" or task.task_id not in self.tasks:
            return
        error.task_id = task.task_id
        if not self.rescue(task, error):
            self.end(task, error.code, error=error)

    def rescue(self, task: Task, error: AnywireError) -> bool:
        """Whether services are asked for an answer in place of ``error``. The task is held meanwhile; no attempt at it
        is under way."""
        services = self._services
        standing = services.stands_after(task, error) if services.concerned else ""
        if not standing or self._dispatcher.gate_closed:
            return False
        if task.agent_timer is not None:
            self.absence.end(task)
        if task.wait is not None:
            self._waiting.ends(task, False)
        if task.place in ("queued", "held"):
            self._dispatcher.remove(task)
        self._dispatcher.hold(task, f"service {standing}")
        self._observation.task_held(task, task.why)
        services.rescue(task, error)
        return True

    def give_up(self, task: Task, error: AnywireError) -> None:
        """End a task from this side: its agent is asked to stop."""
        error.agent_id = task.agent_id if task.attempts else ""
        self.fail(task, error)

    def cancel(self, task_id: str, reason: str) -> None:
        """End a task that nobody here needs any more: its reader has gone, or its parent has ended. Does nothing when
        it has ended."""
        task = self.tasks.get(task_id)
        if task is not None:
            self.give_up(task, errors.TaskCancelled(reason))

    def cancel_by(self, task_id: str, reason: str, caller: Caller) -> bool:
        """See `anywire.pipeline.orchestrator.Orchestrator.cancel`."""
        task = self.find(task_id, caller)
        if task is None:
            return False
        self._observation.hold()  # told before the end, when it has ended
        try:
            self._observation.task_cancelled(task, caller)
            self.give_up(task, errors.TaskCancelled(reason))
        finally:
            self._observation.release()
        return True

    def end_caller(self, caller_id: str) -> None:
        """See `anywire.pipeline.orchestrator.Orchestrator.end_caller`."""
        for task in [each for each in self.tasks.values() if each.submission.caller.id == caller_id]:
            self.give_up(task, errors.Unauthenticated(KEY_GONE))

    def reader_stalled(self, task: Task) -> None:
        """Nobody has read it for too long."""
        message = f"nothing was read for {self._config.reader_timeout:g} s"
        self.give_up(task, errors.ReaderStalled(message))


def _tokens(task: Task, share: Share, attempt: Attempt | None, code: str, final: Chunk | None) -> int:
    """How many tokens a task has used that ends with ``code``: the engine's count, and where it gave none an estimate
    by what was sent and delivered; ``attempt`` is the last one. Tokens that were counted and not read are none."""
    if not share.limits.tokens_per_day or task.submission.kind in COUNTED_ONLY:
        return 0
    if final is not None and final.usage:
        prompt, answer = token_counts(final.usage)
        if prompt or answer:
            return prompt + answer
    pieces = max(task.chunks, attempt.next_seq if attempt is not None else 0)
    if final is not None and not task.submission.stream:
        pieces = max(pieces, sum(map(len, final.deltas)) // CHARS_PER_TOKEN)
    if pieces or (task.sent and code in BY_CLIENT):
        return share.prompt + pieces
    return 0


def _name_models(task: Task, error: AnywireError) -> None:
    """Let an error say as which models the task was tried, and how the others failed."""
    before = ", ".join([f"{model!r} ({code})" for model, code in task.fell_from])
    error.add(f" (model {task.queued.keys[0].model!r}, in place of {before})")
