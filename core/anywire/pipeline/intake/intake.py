"""The way of a task into the pipeline: from a submission to a task that is queued, held, or with a service."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import partial

import msgspec

from anywire.boundary import label
from anywire.caller import NO_LIMITS
from anywire.clock import Clock
from anywire.demand import prefix_hashes, read_demand
from anywire.errors import InvalidRequest, NoAgent
from anywire.pipeline.attempts.attempts import Attempts
from anywire.pipeline.attempts.fallbacks import Fallbacks, Keys
from anywire.pipeline.attempts.task_ends import TaskEnds
from anywire.pipeline.observation.observation import Observation
from anywire.pipeline.orders.preemption import Preemption
from anywire.pipeline.queue.admission import Admission
from anywire.pipeline.queue.dispatcher import Dispatcher
from anywire.pipeline.queue.queue_room import QueueRoom
from anywire.pipeline.queue.waiting import Waiting
from anywire.pipeline.services.service_answers import ServiceAnswers
from anywire.pipeline.tasks.limits import CallerLimits
from anywire.pipeline.tasks.task import Task
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import QueuedTask, Scheduler
from anywire.selector import Selector
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.tracing import Tracing

IGNORED_PRIORITY = ("priority",)
IGNORED_POLICY = ("policy",)

log = logging.getLogger(__name__)


class Intake:
    """Makes a task of each submission that is admitted. ``task_ids`` must not be guessable; ``scheduler`` and
    ``selector`` are asked what they want to know of a task."""

    def __init__(
        self,
        admission: Admission,
        room: QueueRoom,
        waiting: Waiting,
        services: ServiceAnswers,
        dispatcher: Dispatcher,
        attempts: Attempts,
        ends: TaskEnds,
        limits: CallerLimits,
        preemption: Preemption | None,
        fallbacks: Fallbacks,
        scheduler: Scheduler,
        selector: Selector,
        task_ids: Iterator[str],
        observation: Observation,
        clock: Clock,
        config: PipelineConfig,
        tracing: Tracing,
    ) -> None:
        self._tracing = tracing
        self._admission, self._services, self._dispatcher = admission, services, dispatcher
        self._room, self._waiting, self._limits = room, waiting, limits
        self._fallbacks = fallbacks
        self._preemption = preemption
        self._attempts, self._ends, self._task_ids = attempts, ends, task_ids
        self._observation, self._clock, self._config = observation, clock, config
        self._wants_prefix = scheduler.wants_prefix or selector.wants_prefix
        self._scheduler_name = label("scheduler", scheduler)
        self._uses_priority = scheduler.uses_priority or preemption is not None
        self._policies = selector.policies
        self._said_ignored = False

    def submit(
        self, submission: Submission, by_service: bool = False, task_id: str = "", attempts: int = 0
    ) -> TaskStream:
        """See `anywire.pipeline.orchestrator.Orchestrator.submit`."""
        received = self._clock.now_ns()
        self._admission.check(submission)
        if submission.policy and self._policies is not None and not submission.hops:
            self._check_policy(submission.policy, self._policies)
        demand = read_demand(submission.outline or submission.body)
        is_limited = submission.caller.limits is not NO_LIMITS
        if is_limited:
            submission = self._admission.allowed(submission, demand)
        if 0 < self._config.max_tokens < demand.max_tokens:
            raise self._admission.too_long(demand)
        services = self._services
        concerned = services.concerned
        keys: Keys = services.keys(submission) if concerned else ()
        chain: Keys = ()
        if not keys:
            keys, chain = self._fallbacks.keys(submission, demand)
        if submission.resume:
            # What one model began no other one goes on with.
            keys, chain = tuple([key for key in keys if key.model == submission.model]), ()
            if not keys:
                raise NoAgent(f"nobody serves the model {submission.model!r}, which has begun the answer")
        if task_id in self._ends.tasks:
            raise InvalidRequest(f"a task with the id {task_id} has not ended", param="task_id")
        # Not to be guessed: whoever knows an id can cancel the task.
        task_id = task_id or next(self._task_ids)
        deadline = submission.deadline_s or self._config.deadline
        bounded = deadline < math.inf
        due = received + int(deadline * 1e9) if bounded else 0
        queued = QueuedTask(
            task_id,
            keys,
            submission.priority,
            received,
            due,
            len(submission.body),
            attempts + 1,
            demand.max_tokens,
            submission.caller,
            submission.session or demand.session,
            submission.parent,
            submission.policy,
            submission.hints or demand.hints,
            submission.prefer,
            submission.avoid,
            prefix_hashes(submission.outline or submission.body) if self._wants_prefix else (),
        )
        stream = TaskStream(task_id, received, self._ends.cancel)
        if submission.priority and not self._uses_priority:
            stream.ignored = IGNORED_PRIORITY
            if not self._said_ignored:
                self._said_ignored = True
                log.warning(
                    "the %s ignores priorities, and a client sent one: set `scheduler.name: priority` to use them",
                    self._scheduler_name,
                )
        if submission.policy and self._policies is None:
            stream.ignored = stream.ignored + IGNORED_POLICY
        task = Task(task_id, submission, queued, stream)
        task.chain = chain
        if submission.resume:
            task.goes_on(submission)
        task.sent = attempts  # numbers are not used twice: an agent may remember them
        task.attempts_left = min(submission.attempts_left or self._config.max_attempts, self._config.max_attempts)
        standing = services.stands_before(task) if concerned else ""
        served = concerned and services.answers(task)
        parent = self._parent(submission, by_service) if submission.parent else None
        family = parent.share if parent is not None and by_service else None
        if is_limited or family is not None:
            task.share = self._admission.share(submission, demand, family)
        way = None
        if not (standing or served or self._observation.tells_admission or self._tracing.is_on):
            way = self._dispatcher.way_past(task)
        try:
            if standing:
                self._dispatcher.hold_new(task, f"service {standing}")
            elif not served and way is None:
                if self._waiting.tenants and not self._may_preempt(submission):
                    self._room.check_deadline(queued)
                self._dispatcher.put(task)
        except BaseException:
            if task.share is not None:
                self._limits.give_back(task.share)
            raise
        self._ends.add(task, deadline)
        if self._tracing.is_on:
            self._trace(task)
        if submission.stream:
            stream.on_read(partial(self._attempts.was_read, task))
        if parent is not None:
            services.adopt(task)
        stream.stages.admitted = self._clock.now_ns()
        self._observation.task_admitted(task)
        if keys[0].model != submission.model:
            self._fallbacks.admitted(task)
        if standing or served:
            if standing:
                self._waiting.begins(task)
            services.begin(task)
            if standing:
                self._observation.task_held(task, task.why)
            return stream
        # It is sent at once where somebody is free.
        if way is not None:
            self._dispatcher.pass_on(task, *way)
        else:
            self._dispatcher.dispatch()
        if task.place == "queued":
            self._ends.absence.check(task)
            self._waiting.begins(task)
            if self._preemption is not None:
                self._preemption.waits(task)
        elif task.place == "held":
            self._waiting.begins(task)
        return stream

    def _trace(self, task: Task) -> None:
        """Let the tracer put its span in the place of the client's."""
        submission = task.submission
        trace = self._tracing.task(task.task_id, submission)
        if trace != submission.trace:
            task.submission = msgspec.structs.replace(submission, trace=trace)

    def _may_preempt(self, submission: Submission) -> bool:
        """Whether how long others wait says nothing of it."""
        return self._preemption is not None and self._preemption.is_urgent(submission.priority)

    @staticmethod
    def _check_policy(policy: str, policies: tuple[str, ...]) -> None:
        """Raises `InvalidRequest` for a policy that is not configured."""
        if policy not in policies:
            known = ", ".join(policies) or "none"
            raise InvalidRequest(f"there is no policy {policy[:80]!r}; policies: {known}", param="policy")

    def _parent(self, submission: Submission, by_service: bool) -> Task | None:
        """The task that made this one, while it runs. A client may name a task that it may cancel."""
        if by_service:
            return self._ends.tasks.get(submission.parent)
        return self._ends.find(submission.parent, submission.caller)
