"""The pipeline: admit → queue → choose → send → stream back, written once for every transport.

It is event-driven and owns its state alone: a submission, a chunk, a freed slot or a change of the registry is handled
to its end where it comes in. Every task ends with exactly one final chunk or error. `Admission` refuses what can be
refused at once, the `Dispatcher` holds the queue and the choice, `Attempts` what is open at the agents, `decide` says
what follows a failed attempt; here is a task's life between them.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from anywire import errors
from anywire.clock import Clock, SystemClock
from anywire.errors import AnywireError
from anywire.identity import boot_id, random_ids
from anywire.lease import AwakeTime
from anywire.messages import Chunk, HubInfo
from anywire.pipeline.absence import Absence
from anywire.pipeline.admission import Admission
from anywire.pipeline.attempt import Attempt
from anywire.pipeline.attempts import Attempts
from anywire.pipeline.config import PipelineConfig
from anywire.pipeline.deadlines import Deadlines
from anywire.pipeline.decide import Budget, Decide, Decision, Fail, Hedge, Requeue, Resume, Retry, decide
from anywire.pipeline.dispatcher import Dispatcher
from anywire.pipeline.ends import Ends
from anywire.pipeline.health import Health, Subject
from anywire.pipeline.link_sink import LinkSink
from anywire.pipeline.observation import Observation
from anywire.pipeline.registry import Registry
from anywire.pipeline.stream import TaskStream
from anywire.pipeline.task import Task
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, Outcome, Selector
from anywire.submission import Submission
from anywire.transport import Hub, Plane, Transport

__all__ = ["Orchestrator", "PipelineConfig"]


def _is_of_texts(answer: Chunk) -> bool:
    texts = (answer.extra, answer.usage, answer.error, answer.finish_reason)
    deltas: object = answer.deltas
    return isinstance(deltas, tuple) and all(isinstance(text, str) for text in (*deltas, *texts))


def _ignore(stream: TaskStream, chunks: int) -> None:
    """Reading what is left of an ended task credits nobody."""


class Orchestrator:
    """A hub on every transport given, in order of preference, with one queue and one selector.

    On the plane ``client`` its agents are orchestrators: see `anywire.client`. ``decide`` says what follows a failed
    attempt.

    `start` raises `TransportUnavailable` when the only transport, or every one, fails to open; with several, those
    that open are used and the others are tried again.
    """

    def __init__(
        self,
        info: HubInfo,
        transports: Sequence[Transport],
        scheduler: Scheduler,
        selector: Selector,
        *,
        config: PipelineConfig | None = None,
        plugins: Plugins | None = None,
        clock: Clock | None = None,
        plane: Plane = "agent",
        decide: Decide = decide,
    ) -> None:
        self.info = info
        self._plane: Plane = plane
        self.config = config = config or PipelineConfig()
        self.clock = clock = clock or SystemClock()
        plugins = plugins or Plugins()
        self.boundary = boundary = plugins.boundary
        self.transports = tuple(transports)
        """In order of preference."""
        self._decide = decide
        self._noting = False
        self._names = [transport.name for transport in transports]
        leased = [transport.capabilities.liveliness != "native" for transport in transports]
        self._events: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._by_transport: Counter[str] = Counter()
        self._tasks: dict[str, Task] = {}
        self.health = Health(clock, self._health_changed, limit=config.cooldown_errors, cooldown=config.cooldown)
        awake = AwakeTime(clock)
        self.registry = Registry(self._names, leased, self, awake, self.health, self._events)
        self._hubs: Ends[Hub] = Ends(transports, self._open_hub, lambda hub: None, clock)
        self.attempts = Attempts(
            info.hub_id, self._hubs, self.registry, self.health, boundary, self, awake, self._events, config
        )
        filters = plugins.call("anywire_filter_candidates")
        self._dispatcher = Dispatcher(scheduler, selector, self.registry, self, boundary, filters, clock)
        self._admission = Admission(config, self.registry)
        self._deadlines = Deadlines(clock, config.deadline, self._out_of_time)
        self._observation = Observation(plugins, selector, boundary)
        self._answer_hook = plugins.call("anywire_answer")
        self._listeners: list[Callable[[], None]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._boot_id = boot_id()
        self._absence = Absence(clock, config.agent_wait, self._no_agent)
        self._task_ids = random_ids()

    # Life

    async def start(self) -> None:
        await self._hubs.open()

    @property
    def closing(self) -> bool:
        """Whether the gate is closed: nothing new is taken in, and nothing more is sent."""
        return self._admission.closed

    def close_gate(self) -> None:
        """Take no task in and send none from now on: what waits ends with `ShuttingDown`, what runs goes on."""
        self._admission.closed = True
        self._dispatcher.close_gate()
        for task in self._dispatcher.waiting_tasks():
            self._fail(task, errors.ShuttingDown("the orchestrator shuts down"))

    async def close(self, grace: float = 0.0) -> None:
        """Close the gate, give the running tasks ``grace`` seconds, end what is left with an error, close the hubs."""
        self.close_gate()
        if self._tasks and grace > 0:
            expired = self.clock.call_later(grace, self._idle.set)
            await self._idle.wait()
            expired.cancel()
        for task in list(self._tasks.values()):
            self._give_up(task, errors.ShuttingDown("the orchestrator shuts down"))
        self._deadlines.close()
        self.attempts.close()
        self.registry.close()
        self.health.close()
        await self._hubs.close()

    async def _open_hub(self, link: int, transport: Transport) -> Hub:
        return await transport.open_hub(
            self.info, self._plane, LinkSink(self.registry, self.attempts, self.info.hub_id, link)
        )

    # What gateways call

    def submit(self, submission: Submission) -> TaskStream:
        """Take a task in. Raises `QueueFull`, `ModelNotFound`, `InvalidRequest`, `PayloadTooLarge`, `ShuttingDown`,
        `PluginFailed`."""
        received = self.clock.now_ns()
        key = QueueKey(submission.model, submission.kind)
        self._admission.check(submission, key)
        # Not to be guessed: whoever knows an id can cancel the task.
        task_id = next(self._task_ids)
        deadline = submission.deadline_s or self.config.deadline
        bounded = deadline < math.inf
        due = received + int(deadline * 1e9) if bounded else 0
        queued = QueuedTask(task_id, key, submission.priority, received, due, len(submission.body))
        stream = TaskStream(task_id, received, self.cancel)
        if self._answer_hook is not None:
            answer = self._answer_hook(task=queued, body=submission.body)
            if isinstance(answer, Chunk) and _is_of_texts(answer):
                return self._answer_early(stream, answer)
            if answer is not None:
                what = f"is no Chunk of texts: {str(answer)[:80]}"
                self.boundary.failed("hook anywire_answer", "result", what, task_id)
        task = Task(task_id, submission, queued, stream)
        self._dispatcher.put(task)
        self._tasks[task_id] = task
        self._idle.clear()
        self._deadlines.add(task, deadline)
        self._await_agent(task)
        if submission.stream:
            stream.on_read(partial(self.attempts.was_read, task))
        stream.stages.admitted = self.clock.now_ns()
        self._dispatcher.dispatch()
        return stream

    def cancel(self, task_id: str, reason: str = "cancelled") -> bool:
        """End a task with `TaskCancelled`, through to its engine; False when there is no such task (any more)."""
        task = self._tasks.get(task_id)
        if task is None:
            return False
        self._give_up(task, errors.TaskCancelled(reason))
        return True

    def agents(self) -> list[AgentView]:
        return self.registry.agents()

    async def agents_until(self, condition: Callable[[list[AgentView]], bool]) -> None:
        """Wait until the agents known fulfil ``condition``; it is asked again at every change of theirs."""
        changed = asyncio.Event()
        stop_listening = self.listen(changed.set)
        try:
            while not condition(self.agents()):
                changed.clear()
                await changed.wait()
        finally:
            stop_listening()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` whenever an agent came, went, or changed state, models or slots; returns what ends that."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def models(self) -> list[str]:
        return self.registry.models()

    @property
    def waiting(self) -> int:
        """How many tasks are queued or held."""
        return self._dispatcher.waiting

    def stats(self) -> dict[str, Any]:
        """Counters since the start, as plain JSON types."""
        waiting = self.waiting
        failures = self.boundary.failures
        return {
            "tasks": {"running": len(self._tasks) - waiting, "queued": waiting, "ended": dict(self._outcomes)},
            "transports": {name: self._by_transport[name] for name in self._names},
            "agents": len(self.registry.agents()),
            "events": dict(self._events)
            | {"transports_unavailable": self._hubs.failures, "plugin_failures": failures.total()},
            "plugin_failures": dict(failures),
        }

    def _answer_early(self, stream: TaskStream, answer: Chunk) -> TaskStream:
        stream.stages.admitted = stream.stages.delivered = self.clock.now_ns()
        stream.push(msgspec.structs.replace(answer, task_id=stream.task_id, attempt=0, seq=0, final=True))
        self._outcomes["answered_early"] += 1
        return stream

    # What the dispatcher asks

    def send(self, task: Task, agent: AgentView) -> None:
        if task.agent_timer is not None:
            self._absence.end(task)
        self.attempts.send(task, agent)

    def fail_task(self, task: Task, error: AnywireError) -> None:
        self._fail(task, error)

    # How attempts end

    def attempt_answered(self, attempt: Attempt, final: Chunk) -> None:
        task = attempt.task
        stages = task.stream.stages
        stages.agent_received, stages.engine_started = final.received_ns, final.started_ns
        stages.first_chunk, stages.last_chunk = final.first_ns, final.last_ns
        stages.comparable = attempt.agent.info.boot_id == self._boot_id
        stages.delivered = self.clock.now_ns()
        self._by_transport[attempt.transport] += 1
        if not self.health.all_ok:
            self._note_health(attempt, None)
        outcome = self.attempts.finish(attempt, "")
        self._end(task, "", outcome, final)

    def attempt_congested(self, attempt: Attempt) -> None:
        if not attempt.task.attempts:
            self._queue_again(attempt.task)

    def attempt_ended(self, outcome: Outcome) -> None:
        self._observation.attempt_ended(outcome)
        self._dispatcher.offer_held()

    def attempt_failed(self, attempt: Attempt, error: AnywireError, over: bool) -> None:
        """Decide what follows, and do it."""
        task = attempt.task
        error.task_id, error.agent_id = task.task_id, attempt.agent_id
        self._note_health(attempt, error)
        if isinstance(error, errors.Refused):
            # It said so before doing anything: somebody else may take it.
            self._events["refused"] += 1
            self.registry.set_cause(attempt.agent, "refused")
        elif isinstance(error, errors.AgentUnavailable) and over:
            self.registry.set_cause(attempt.agent, "unreachable")
        others = len(task.attempts) > 1
        decision: Decision = Fail()
        if not others:
            elsewhere = any(agent.agent_id not in task.tried for agent in self.registry.candidates(task.queued.key))
            budget = Budget(self.config.max_attempts - task.losses - 1, elsewhere)
            decision = self._decision(task, attempt, error, budget)
            if isinstance(decision, Hedge):
                if not over and self._dispatcher.hedge(task):
                    self._events["hedges"] += 1
                    return
                if not over:
                    return
                decision = decide(task, attempt, error, self.health, budget)
            task.losses += not isinstance(decision, Requeue)
        outcome: Outcome | None = None
        if over:
            outcome = self.attempts.finish(attempt, error.code)
        else:
            attempt.code = error.code
            self.attempts.cancel(attempt, str(error))
        if others:
            if outcome is not None:
                self._observation.attempt_ended(outcome)
            self._dispatcher.offer_held()
        elif isinstance(decision, Fail) or self.closing:
            shut = self.closing and not isinstance(decision, Fail)
            ending = errors.ShuttingDown("the orchestrator shuts down") if shut else error
            ending.task_id = task.task_id
            self._end(task, ending.code, outcome, error=ending)
        else:
            if not isinstance(decision, Requeue):
                self._events["retries"] += 1
            after = 0.0 if isinstance(decision, (Requeue, Hedge)) else decision.after
            self._queue_again(task, after)
            if outcome is not None:
                self._observation.attempt_ended(outcome)
            self._dispatcher.offer_held()

    def _decision(self, task: Task, attempt: Attempt, error: AnywireError, budget: Budget) -> Decision:
        """What ``decide`` says; the built-in one where another fails, or wants what would show text twice."""
        fault: Exception | str
        decision: Any
        try:
            decision = self._decide(task, attempt, error, self.health, budget)
            if isinstance(decision, Retry | Resume) and not 0 <= decision.after < math.inf:
                fault = f"returned {str(decision)[:80]}, which names no time"
            elif not isinstance(decision, Requeue | Retry | Resume | Hedge | Fail):
                fault = f"returned {str(decision)[:80]!r}, which is no decision"
            elif not task.chunks or isinstance(decision, Fail) or (task.can_resume and not isinstance(decision, Hedge)):
                decided: Decision = decision
                return decided
            else:
                fault = f"returned {decision} for a task whose text was shown and that cannot be resumed so"
        except Exception as failure:
            fault = failure
        self.boundary.failed("decide", getattr(self._decide, "__name__", "call"), fault, task.task_id)
        return decide(task, attempt, error, self.health, budget)

    def _note_health(self, attempt: Attempt, error: AnywireError | None) -> None:
        """Whoever calls this dispatches afterwards, once the reader has its end."""
        self._noting = True
        try:
            self.health.note(attempt.agent_id, attempt.place, error)
        finally:
            self._noting = False

    def reader_stalled(self, task: Task) -> None:
        message = f"nothing was read for {self.config.reader_timeout:g} s"
        self._give_up(task, errors.ReaderStalled(message))

    def _queue_again(self, task: Task, after: float = 0.0) -> None:
        """Put a task back whose attempt has ended, ``after`` seconds from now."""
        task.queued = msgspec.structs.replace(task.queued, attempt=task.sent + 1)
        if self.closing:
            self._fail(task, errors.ShuttingDown("the orchestrator shuts down"))
            return
        if after > 0:
            self._dispatcher.hold(task, "retry")
            task.retry_timer = self.clock.call_later(after, self._retry_now, task)
        else:
            self._dispatcher.put_back(task)
        if task.place != "ended":
            self._await_agent(task)

    def _retry_now(self, task: Task) -> None:
        task.retry_timer = None
        self._dispatcher.put_back(task)
        self._dispatcher.dispatch()

    # How tasks end

    def _end(
        self,
        task: Task,
        code: str,
        outcome: Outcome | None = None,
        final: Chunk | None = None,
        error: AnywireError | None = None,
    ) -> None:
        """The one place where a task ends; ``code`` is its error's, empty for an answer. The reader has its end before
        any plugin, hook or listener runs."""
        del self._tasks[task.task_id]
        was_waiting = task.place in ("queued", "held")
        task.place = "ended"
        if task.agent_timer is not None:
            self._absence.end(task)
        task.cancel_timers()
        self._deadlines.remove(task)
        if task.submission.stream:
            task.stream.on_read(_ignore)
        self._outcomes[code or "answered"] += 1
        if final is not None:
            task.stream.push(final)
        elif error is not None:
            task.stream.fail(error)
        for attempt in list(task.attempts.values()) if task.attempts else ():
            self.attempts.cancel(attempt, str(error) if error is not None else "the task has ended")
        if not self._tasks:
            self._idle.set()
        if was_waiting:
            self._dispatcher.remove(task)
        if outcome is not None and self._observation.observes:
            self._observation.attempt_ended(outcome)
        self._observation.task_ended(task, code)
        self._dispatcher.offer_held()

    def _fail(self, task: Task, error: AnywireError) -> None:
        if task.place == "ended" or task.task_id not in self._tasks:
            return
        error.task_id = task.task_id
        self._end(task, error.code, error=error)

    def _give_up(self, task: Task, error: AnywireError) -> None:
        """End a task from this side: its agent is asked to stop."""
        error.agent_id = task.agent_id if task.attempts else ""
        self._fail(task, error)

    def _out_of_time(self, task: Task) -> None:
        task.deadline_timer = None
        seconds = (task.queued.deadline_ns - task.queued.received_ns) / 1e9
        where = f"on agent {task.agent_id}" if task.place == "running" else "in the queue"
        self._give_up(task, errors.DeadlineExceeded(f"deadline exceeded: not finished within {seconds:g} s ({where})"))

    def _await_agent(self, task: Task) -> None:
        if not self.registry.serves(task.queued.key):
            self._absence.begin(task)

    def _no_agent(self, task: Task) -> None:
        key, wait = task.queued.key, self.config.agent_wait
        nobody = errors.NoAgent(f"no agent for model {key.model!r} within {wait:g} s")
        self._fail(task, self._admission.unknown(key) or nobody)

    # What the registry tells

    def agent_joined(self, agent: AgentView) -> None:
        self._events["agents_joined"] += 1
        self._observation.agent_joined(agent)

    def link_joined(self, agent: AgentView, link: int) -> None:
        self.attempts.link_joined(agent, link)

    def link_lost(self, agent: AgentView, link: int, reason: str) -> None:
        self._events["links_lost"] += 1
        self.attempts.link_lost(agent, link, reason)

    def link_chosen(self, agent: AgentView, fallback: bool) -> None:
        self._events["fallbacks" if fallback else "preferred_links_restored"] += 1

    def agent_lost(self, agent: AgentView, reason: str) -> None:
        self._events["agents_lost"] += 1
        self._observation.agent_lost(agent, reason)

    def agents_changed(self) -> None:
        for listener in list(self._listeners):
            self.boundary.call("listener", "agents_changed", listener, otherwise=None)

    def capacity_changed(self) -> None:
        self._dispatcher.offer_held()

    def served(self, keys: Sequence[QueueKey]) -> None:
        self._absence.served(keys)

    def unserved(self, keys: Sequence[QueueKey]) -> None:
        gone = set(keys)
        for task in self._dispatcher.waiting_tasks():
            if task.queued.key in gone:
                self._await_agent(task)

    def _health_changed(self, subject: Subject) -> None:
        agent_id = subject if isinstance(subject, str) else subject[0]
        self._events["cooldowns"] += self.health.state(subject) == "cooling"
        self.registry.health_changed(agent_id)
        if not self._noting:
            self._dispatcher.offer_held()
