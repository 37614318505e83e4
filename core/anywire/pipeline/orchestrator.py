"""The pipeline: admit → queue → choose → send → stream back, written once for every transport.

It is event-driven and owns its state alone: a submission, a chunk, a freed slot or a change of the registry is handled
to its end where it comes in. Every task ends with exactly one final chunk or error. The `Dispatcher` holds the
queue and the choice, `Attempts` what is on the agents; here is a task's life around them.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec
import pydantic

from anywire import errors
from anywire.clock import Clock, SystemClock
from anywire.errors import AnywireError
from anywire.identity import boot_id
from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo
from anywire.pipeline.attempts import Attempts
from anywire.pipeline.dispatcher import Dispatcher
from anywire.pipeline.ends import Ends
from anywire.pipeline.registry import Registry
from anywire.pipeline.stream import TaskStream
from anywire.pipeline.task import Task
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, Selector
from anywire.stages import TaskRecord
from anywire.submission import Submission
from anywire.transport import Hub, Plane, Transport


class PipelineConfig(pydantic.BaseModel):
    """The pipeline's own settings; times in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    deadline: float = pydantic.Field(
        default=600.0, gt=0, allow_inf_nan=False, description="a task's time when its client names none"
    )
    max_attempts: int = pydantic.Field(default=3, ge=1, description="how often a task may be sent before it fails")
    stall_timeout: float = pydantic.Field(default=60.0, gt=0, description="a reader may stand still for so long")
    window: int = pydantic.Field(default=64, ge=2, le=65536, description="chunks a stream may be ahead of its reader")
    agent_wait: float = pydantic.Field(default=5.0, ge=0, description="how long a task waits for an agent to appear")
    resume: bool = pydantic.Field(default=False, description="go on elsewhere mid-stream, if the engine can resume")
    max_body_bytes: int = pydantic.Field(default=8 * 1024 * 1024, ge=1024)
    max_hops: int = pydantic.Field(default=8, ge=0, description="orchestrators that may pass a task on to another one")


class _LinkSink:
    """One transport's way into the pipeline."""

    def __init__(self, orchestrator: Orchestrator, link: int) -> None:
        self._registry, self._link = orchestrator.registry, link
        self._own_id = orchestrator.info.hub_id
        self._orchestrator = orchestrator

    def agent_joined(self, info: AgentInfo) -> None:
        # Where it joins a parent over the very transport on which it is a hub, it meets itself.
        if info.agent_id != self._own_id:
            self._registry.joined(self._link, info)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        self._registry.reported(self._link, status)

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        self._orchestrator.chunk_received(chunk)

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        self._orchestrator.send_failed(task_id, attempt, error)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        self._registry.lost(self._link, agent_id, incarnation, reason)


class Orchestrator:
    """A hub on every transport given, in order of preference, with one queue and one selector.

    On the plane ``client`` its agents are orchestrators: see `anywire.client`.

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
    ) -> None:
        self.info = info
        self._plane: Plane = plane
        self.config = config = config or PipelineConfig()
        self.clock = clock = clock or SystemClock()
        self.closing = False
        plugins = plugins or Plugins()
        self.transports = tuple(transports)
        """In order of preference."""
        self._names = [transport.name for transport in transports]
        leased = [transport.capabilities.liveliness != "native" for transport in transports]
        self.registry = Registry(self._names, leased, self, clock)
        self._tasks: dict[str, Task] = {}
        self._events: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._by_transport: Counter[str] = Counter()
        self._hubs: Ends[Hub] = Ends(transports, self._open_hub, lambda hub: None, clock)
        self._attempts = Attempts(
            info.hub_id,
            self._hubs,
            self.registry,
            selector,
            self,
            clock,
            self._events,
            window=config.window,
            stall_timeout=config.stall_timeout,
            keep_text=config.resume,
        )
        self._dispatcher = Dispatcher(scheduler, selector, self.registry, self._tasks, self._attempts.send, plugins)
        self._listeners: list[Callable[[], None]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._prefix = secrets.token_hex(5)
        self._numbers = count(1)
        self._boot_id = boot_id()
        self._answer_hook = plugins.call("anywire_answer")
        self._finished_hook = plugins.call("anywire_task_finished")
        self._joined_hook = plugins.call("anywire_agent_joined")
        self._lost_hook = plugins.call("anywire_agent_lost")

    # Life

    async def start(self) -> None:
        await self._hubs.open()

    async def close(self, grace: float = 0.0) -> None:
        """Refuse new tasks, give the running ones ``grace`` seconds, end what is left with an error, close the hubs."""
        self.closing = True
        if self._tasks and grace > 0:
            expired = self.clock.call_later(grace, self._idle.set)
            await self._idle.wait()
            expired.cancel()
        for task in list(self._tasks.values()):
            self._give_up(task, errors.ShuttingDown("the orchestrator shuts down"))
        self._attempts.close()
        self.registry.close()
        await self._hubs.close()

    async def _open_hub(self, link: int, transport: Transport) -> Hub:
        return await transport.open_hub(self.info, self._plane, _LinkSink(self, link))

    # What gateways call

    def submit(self, submission: Submission) -> TaskStream:
        """Take a task in. Raises `QueueFull`, `ModelNotFound`, `InvalidRequest`, `PayloadTooLarge`, `ShuttingDown`."""
        received = self.clock.now_ns()
        key = QueueKey(submission.model, submission.kind)
        self._check(submission, key)
        task_id = f"{self._prefix}{next(self._numbers):x}"
        deadline = submission.deadline_s or self.config.deadline
        bounded = deadline < math.inf
        due = received + int(deadline * 1e9) if bounded else 0
        queued = QueuedTask(task_id, key, submission.priority, received, due, len(submission.body))
        stream = TaskStream(task_id, received, self.cancel)
        if self._answer_hook is not None:
            answer = self._answer_hook(task=queued, body=submission.body)
            if answer is not None:
                return self._answer_early(stream, answer)
        self._dispatcher.put(queued)
        self._tasks[task_id] = task = Task(task_id, submission, queued, stream)
        self._idle.clear()
        if bounded:
            task.deadline_timer = self.clock.call_later(deadline, self._out_of_time, task)
        self._await_agent(task)
        if submission.stream:
            stream.on_read(self._was_read)
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
        """How many tasks are queued."""
        return self._dispatcher.waiting

    def stats(self) -> dict[str, Any]:
        """Counters since the start, as plain JSON types."""
        queued = self.waiting
        return {
            "tasks": {"running": len(self._tasks) - queued, "queued": queued, "ended": dict(self._outcomes)},
            "transports": {name: self._by_transport[name] for name in self._names},
            "agents": len(self.registry.agents()),
            "events": dict(self._events) | {"transports_unavailable": self._hubs.failures},
        }

    def _check(self, submission: Submission, key: QueueKey) -> None:
        """Refuse what can be told at once."""
        if self.closing:
            raise errors.ShuttingDown("the orchestrator is shutting down")
        limit = self.config.max_body_bytes
        if len(submission.body) > limit:
            raise errors.PayloadTooLarge(f"the request has {len(submission.body)} characters, the limit is {limit}")
        if submission.hops > self.config.max_hops:
            raise errors.ConfigError(
                f"{submission.hops} orchestrators have passed this task on, the limit is {self.config.max_hops} "
                "(pipeline.max_hops): do orchestrators join each other in a circle?"
            )
        unknown = self._unknown(key)
        if unknown is not None:
            raise unknown

    def _unknown(self, key: QueueKey) -> AnywireError | None:
        """The error for a model that is not served here and never was; None while somebody may yet come."""
        if self.registry.serves(key) or self.registry.served_ever(key):
            return None
        agents = self.registry.agents()
        if not agents or any(agent.status.state == "starting" for agent in agents):
            return None
        models = self.registry.models()
        if key.model in models:
            return errors.InvalidRequest(f"model {key.model!r} does not do {key.kind} here", param="model")
        known = ", ".join(models) or "none"
        return errors.ModelNotFound(f"no agent serves the model {key.model!r}; models served: {known}", param="model")

    def _answer_early(self, stream: TaskStream, answer: Chunk) -> TaskStream:
        stream.stages.admitted = stream.stages.delivered = self.clock.now_ns()
        stream.push(msgspec.structs.replace(answer, task_id=stream.task_id, attempt=0, seq=0, final=True))
        self._outcomes["answered_early"] += 1
        return stream

    # What comes back

    def chunk_received(self, chunk: Chunk) -> None:
        task = self._tasks.get(chunk.task_id)
        if task is None:
            self._events["stale_chunks"] += 1
        else:
            self._attempts.chunk_received(task, chunk)

    def send_failed(self, task_id: str, attempt: int, error: AnywireError) -> None:
        task = self._tasks.get(task_id)
        if task is not None and task.attempt == attempt and task.agent is not None:
            self._attempts.fail(task, error)

    def attempt_answered(self, task: Task, final: Chunk) -> None:
        assert task.agent is not None
        stages = task.stream.stages
        stages.agent_received, stages.engine_started = final.received_ns, final.started_ns
        stages.first_chunk, stages.last_chunk = final.first_ns, final.last_ns
        stages.comparable = task.agent.info.boot_id == self._boot_id
        stages.delivered = self.clock.now_ns()
        self._by_transport[task.transport] += 1
        self._end(task, "")
        task.stream.push(final)

    def attempt_corrupted(self, task: Task, error: AnywireError) -> None:
        self._fail(task, error)

    def attempt_congested(self, task: Task) -> None:
        self._requeue(task)

    def attempt_failed(self, task: Task, agent: AgentView, error: AnywireError) -> None:
        """Decide whether another attempt is made."""
        if isinstance(error, errors.Refused):
            # It said so before doing anything: somebody else may take it, and this is no lost attempt.
            self._events["refused"] += 1
            self.registry.block(agent)
            self._requeue(task)
            self._await_agent(task)
            self._dispatcher.dispatch()
        elif self._is_of_the_link(task, error) or self._is_local(task, error):
            self._retry(task, error)
        else:
            self._fail(task, error)

    def _is_of_the_link(self, task: Task, error: AnywireError) -> bool:
        """Whether the way to the agent broke. An orchestrator that is an agent here may also *say* that one of its own
        was lost, after trying what can be tried there."""
        said = error.phase == "streaming" and not task.chunks
        return isinstance(error, (errors.AgentLost, errors.AgentUnavailable)) and not said

    def _is_local(self, task: Task, error: AnywireError) -> bool:
        """What an agent failed at before the first token may be its own trouble: another one is worth a try."""
        if not isinstance(error, (errors.EngineFailed, errors.AgentLost, errors.AgentUnavailable)) or task.chunks:
            return False
        return any(agent.agent_id not in task.tried for agent in self.registry.candidates(task.queued.key))

    def _retry(self, task: Task, error: AnywireError) -> None:
        """Queue it again after a lost attempt, where that is safe; else end it with ``error``."""
        task.losses += 1
        resumable = self.config.resume and task.can_resume
        if (task.chunks and not resumable) or task.losses >= self.config.max_attempts:
            self._fail(task, error)
            return
        self._events["retries"] += 1
        self._requeue(task)
        self._await_agent(task)
        self._dispatcher.dispatch()

    def _requeue(self, task: Task) -> None:
        task.queued = msgspec.structs.replace(task.queued, attempt=task.attempt + 1)
        self._dispatcher.put_back(task.queued)

    def _await_agent(self, task: Task) -> None:
        """Bound the time a task waits when nobody serves its model."""
        if task.agent_timer is None and not self.registry.serves(task.queued.key):
            task.agent_timer = self.clock.call_later(self.config.agent_wait, self._no_agent, task)

    # The ends of a task

    def _end(self, task: Task, code: str) -> None:
        """The one place where a task ends; ``code`` is its error's, empty for an answer."""
        del self._tasks[task.task_id]
        self._dispatcher.remove(task.task_id)
        task.cancel_timers()
        self._outcomes[code or "answered"] += 1
        self._attempts.release(task, code)
        if self._finished_hook is not None:
            self._finished_hook(record=self._record(task, code))
        if not self._tasks:
            self._idle.set()
        self._dispatcher.changed()

    def _fail(self, task: Task, error: AnywireError) -> None:
        error.task_id = task.task_id
        self._end(task, error.code)
        task.stream.fail(error)

    def _give_up(self, task: Task, error: AnywireError) -> None:
        """End a task from this side: its agent is told to stop."""
        error.agent_id = task.agent_id if task.agent is not None else ""
        self._attempts.abandon(task, str(error))
        self._fail(task, error)

    def _record(self, task: Task, code: str) -> TaskRecord:
        kind, model = task.submission.kind, task.submission.model
        last = (task.stream.agent_id, task.stream.transport)
        size = task.queued.prompt_chars
        return TaskRecord(task.task_id, kind, model, *last, task.attempt, code, task.chunks, size, task.stream.stages)

    def _out_of_time(self, task: Task) -> None:
        task.deadline_timer = None
        seconds = (task.queued.deadline_ns - task.queued.received_ns) / 1e9
        where = f"on agent {task.agent_id}" if task.agent is not None else "in the queue"
        self._give_up(task, errors.DeadlineExceeded(f"deadline exceeded: not finished within {seconds:g} s ({where})"))

    def _no_agent(self, task: Task) -> None:
        task.agent_timer = None
        key, wait = task.queued.key, self.config.agent_wait
        if task.agent is None and not self.registry.serves(key):
            nobody = errors.NoAgent(f"no agent for model {key.model!r} within {wait:g} s")
            self._fail(task, self._unknown(key) or nobody)

    def _was_read(self, stream: TaskStream, chunks: int) -> None:
        task = self._tasks.get(stream.task_id)
        if task is not None:
            self._attempts.was_read(task, chunks)

    # What the registry tells

    def agent_joined(self, agent: AgentView) -> None:
        self._events["agents_joined"] += 1
        if self._joined_hook is not None:
            self._joined_hook(agent=agent)

    def link_joined(self, agent: AgentView, link: int) -> None:
        self._attempts.link_joined(agent, link)

    def link_lost(self, agent: AgentView, link: int, reason: str) -> None:
        self._events["links_lost"] += 1
        self._attempts.link_lost(agent, link, reason)

    def link_chosen(self, agent: AgentView, fallback: bool) -> None:
        self._events["fallbacks" if fallback else "preferred_links_restored"] += 1

    def agent_lost(self, agent: AgentView, reason: str) -> None:
        self._events["agents_lost"] += 1
        self._attempts.agent_lost(agent)
        if self._lost_hook is not None:
            self._lost_hook(agent=agent, reason=reason)

    def agents_changed(self) -> None:
        for task in self._tasks.values():
            if task.agent is None:
                self._await_agent(task)
        for listener in list(self._listeners):
            listener()

    def capacity_changed(self) -> None:
        self._dispatcher.changed()
