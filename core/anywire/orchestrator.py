"""The pipeline: admit → queue → choose → send → stream back, written once for every transport.

It is event-driven and owns its state alone: a submission, a chunk, a freed slot or a change of the registry calls
`_dispatch`, which sends what can be sent and returns. Every task ends with exactly one final chunk or error.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec
import pydantic

from anywire import errors
from anywire.attempts import Task, check_chunk, unknown_key_error
from anywire.clock import Clock, SystemClock
from anywire.errors import AnywireError
from anywire.gateway import Submission
from anywire.identity import boot_id
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, HubInfo, TaskRequest
from anywire.plugins import Plugins
from anywire.registry import Registry
from anywire.scheduler import QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, Outcome, Selector
from anywire.stages import TaskRecord
from anywire.stream import TaskStream
from anywire.transport import Hub, Transport

log = logging.getLogger(__name__)


class PipelineConfig(pydantic.BaseModel):
    """The pipeline's own settings; times in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    deadline: float = pydantic.Field(default=600.0, gt=0, description="a task's time when its client names none")
    max_attempts: int = pydantic.Field(default=3, ge=1, description="how often a task may be sent before it fails")
    stall_timeout: float = pydantic.Field(default=60.0, gt=0, description="a reader may stand still for so long")
    window: int = pydantic.Field(default=64, ge=2, le=65536, description="chunks a stream may be ahead of its reader")
    agent_wait: float = pydantic.Field(default=5.0, ge=0, description="how long a task waits for an agent to appear")
    resume: bool = pydantic.Field(default=False, description="go on elsewhere mid-stream, if the engine can resume")
    max_body_bytes: int = pydantic.Field(default=8 * 1024 * 1024, ge=1024)


class _LinkSink:
    """One transport's way into the pipeline."""

    def __init__(self, orchestrator: Orchestrator, link: int) -> None:
        registry = orchestrator.registry
        self._registry, self._link = registry, link
        self.chunk_received = orchestrator.chunk_received
        self.send_failed = orchestrator.send_failed

    def agent_joined(self, info: AgentInfo) -> None:
        self._registry.joined(self._link, info)

    def agent_reported(self, status: AgentStatus) -> None:
        self._registry.reported(self._link, status)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        self._registry.lost(self._link, agent_id, incarnation, reason)


class Orchestrator:
    """A hub on every transport given, in order of preference, with one queue and one selector.

    `start` raises `TransportUnavailable` when the only transport, or every one, fails to open; with several, those
    that open are used and the others are logged.
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
    ) -> None:
        self.info = info
        self.config = config or PipelineConfig()
        self.clock = clock or SystemClock()
        self.closing = False
        self._transports = list(transports)
        self._scheduler, self._selector = scheduler, selector
        names = [transport.name for transport in transports]
        leased = [transport.capabilities.liveliness != "native" for transport in transports]
        self.registry = Registry(names, leased, self, self.clock)
        self._hubs: list[Hub | None] = []
        self._tasks: dict[str, Task] = {}
        self._on_agent: dict[str, dict[str, Task]] = {}
        self._held: list[QueuedTask] = []
        self._abandoned: dict[str, list[Cancel]] = {}
        self._draining: set[asyncio.Task[None]] = set()
        self._dispatching = False
        self._watchers: list[asyncio.Future[None]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._outcomes: Counter[str] = Counter()
        self._by_transport: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._prefix = secrets.token_hex(5)
        self._numbers = count(1)
        self._boot_id = boot_id()
        plugins = plugins or Plugins()
        self._filters = plugins.implementations("anywire_filter_candidates")
        self._answer_hook = plugins.call("anywire_answer")
        self._finished_hook = plugins.call("anywire_task_finished")
        self._joined_hook = plugins.call("anywire_agent_joined")
        self._lost_hook = plugins.call("anywire_agent_lost")

    # Life

    async def start(self) -> None:
        failures: list[AnywireError] = []
        for link, transport in enumerate(self._transports):
            try:
                self._hubs.append(await transport.open_hub(self.info, "agent", _LinkSink(self, link)))
            except errors.TransportUnavailable as error:
                self._hubs.append(None)
                failures.append(error)
                if len(self._transports) > 1:
                    log.warning("transport %s does not open and is left out: %s", transport.name, error)
                    self._counts["transports_unavailable"] += 1
        if not any(self._hubs):
            raise failures[0] if failures else errors.ConfigError("no transport is configured")

    async def close(self, grace: float = 0.0) -> None:
        """Refuse new tasks, give the running ones ``grace`` seconds, end what is left with an error, close the hubs."""
        self.closing = True
        if self._tasks and grace > 0:
            expired = self.clock.call_later(grace, self._idle.set)
            await self._idle.wait()
            expired.cancel()
        for task in list(self._tasks.values()):
            self._abandon(task, "the orchestrator shuts down")
            self._end(task, errors.ShuttingDown("the orchestrator shuts down", task_id=task.task_id))
        for pending in list(self._draining):
            pending.cancel()
        self.registry.close()
        for hub in self._hubs:
            if hub is not None:
                await hub.close()

    # What gateways call

    def submit(self, submission: Submission) -> TaskStream:
        """Take a task in. Raises `QueueFull`, `ModelNotFound`, `InvalidRequest`, `PayloadTooLarge` or `ShuttingDown`."""
        received = self.clock.now_ns()
        config = self.config
        if self.closing:
            raise errors.ShuttingDown("the orchestrator is shutting down")
        if len(submission.body) > config.max_body_bytes:
            raise errors.PayloadTooLarge(
                f"the request has {len(submission.body)} characters, the limit is {config.max_body_bytes}"
            )
        key = QueueKey(submission.model, submission.kind)
        served = self.registry.serves(key)
        if not served and not self.registry.served_ever(key):
            refusal = unknown_key_error(key, self.registry)
            if refusal is not None:
                raise refusal
        task_id = f"{self._prefix}{next(self._numbers):x}"
        deadline = submission.deadline_s or config.deadline
        queued = QueuedTask(
            task_id, key, submission.priority, received, received + int(deadline * 1e9), len(submission.body)
        )
        stream = TaskStream(task_id, received, self.cancel)
        task = Task(task_id, submission, queued, stream)
        if self._answer_hook is not None:
            answer = self._answer_hook(task=queued, body=submission.body)
            if answer is not None:
                return self._answer_early(task, answer)
        self._scheduler.put(queued)
        self._tasks[task_id] = task
        self._idle.clear()
        task.deadline_timer = self.clock.call_later(deadline, self._out_of_time, task)
        if not served:
            task.agent_timer = self.clock.call_later(config.agent_wait, self._no_agent, task)
        stream.stages.admitted = self.clock.now_ns()
        if submission.stream:
            stream.on_read(self._was_read)
        self._dispatch()
        return stream

    def cancel(self, task_id: str, reason: str = "cancelled") -> bool:
        """End a task with `TaskCancelled`, through to its engine; False when there is no such task (any more)."""
        task = self._tasks.get(task_id)
        if task is None:
            return False
        self._abandon(task, reason)
        self._end(task, errors.TaskCancelled(reason, task_id=task_id, agent_id=task.agent_id))
        return True

    def agents(self) -> list[AgentView]:
        return self.registry.agents()

    async def agents_until(self, condition: Callable[[list[AgentView]], bool]) -> None:
        """Wait until the agents known fulfil ``condition``; it is asked again at every change of theirs."""
        while not condition(self.agents()):
            waiter = asyncio.get_running_loop().create_future()
            self._watchers.append(waiter)
            await waiter

    def models(self) -> list[str]:
        return self.registry.models()

    def stats(self) -> dict[str, Any]:
        """Counters since the start, as plain JSON types."""
        return {
            "tasks": {"running": len(self._tasks) - len(self._scheduler), "queued": len(self._scheduler)}
            | {"ended": dict(self._outcomes)},
            "transports": {transport.name: self._by_transport[transport.name] for transport in self._transports},
            "agents": len(self.registry.agents()),
            "events": dict(self._counts),
        }

    # Dispatch

    def _dispatch(self) -> None:
        # A selector, hook or transport may cause a change that asks for a dispatch: the loop below sees it anyway.
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while len(self._scheduler):
                queued = self._scheduler.take(self._ready)
                if queued is None:
                    return
                self._place(self._tasks[queued.task_id])
        finally:
            self._dispatching = False

    def _ready(self, key: QueueKey) -> bool:
        return bool(self.registry.candidates(key))

    def _place(self, task: Task) -> None:
        candidates: Sequence[AgentView] = self.registry.candidates(task.queued.key)
        if task.tried:
            candidates = [agent for agent in candidates if agent.agent_id not in task.tried] or candidates
        if task.chunks:
            candidates = [agent for agent in candidates if "resume" in agent.info.capabilities]
        for narrow in self._filters:
            try:
                narrowed = narrow(task=task.queued, candidates=candidates)
            except Exception:
                log.exception("a hook anywire_filter_candidates failed")
                continue
            candidates = candidates if narrowed is None else narrowed
        agent = self._selector.select(task.queued, candidates) if candidates else None
        if agent is None:
            self._held.append(task.queued)
            return
        task.stream.stages.selected = self.clock.now_ns()
        self._send(task, agent)

    def _send(self, task: Task, agent: AgentView) -> None:
        now = self.clock.now_ns()
        submission, link = task.submission, self.registry.link(agent)
        task.begin_attempt(agent, link, self.config.window)
        request = TaskRequest(
            self.info.hub_id,
            task.task_id,
            task.attempt,
            submission.kind,
            submission.model,
            submission.body,
            submission.stream,
            "".join(task.delivered),
            submission.priority,
            max(1, (task.queued.deadline_ns - now) // 1_000_000),
            self.config.window,
            submission.hops,
            submission.trace,
        )
        hub = self._hubs[link]
        assert hub is not None
        self.registry.acquire(agent)
        self._on_agent.setdefault(agent.agent_id, {})[task.task_id] = task
        # Before the call and not after it: the agent may have the task before `send` returns.
        task.stream.stages.sent = self.clock.now_ns()
        try:
            hub.send(agent.agent_id, request)
        except errors.Congested:
            self._release(task)
            self._counts["congested"] += 1
            self._wait_for_room(hub, agent)
            self._requeue(task)
        except errors.AgentUnavailable as error:
            self._release(task)
            self.registry.block(agent)
            self._retry(task, error)
        except AnywireError as error:
            self._release(task)
            error.task_id = task.task_id
            self._end(task, error)

    def _wait_for_room(self, hub: Hub, agent: AgentView) -> None:
        self.registry.block(agent)

        async def wait() -> None:
            await hub.drain(agent.agent_id)
            self.registry.unblock(agent)

        waiting = asyncio.get_running_loop().create_task(wait())
        self._draining.add(waiting)
        waiting.add_done_callback(self._draining.discard)

    # What comes back

    def chunk_received(self, chunk: Chunk) -> None:
        task = self._tasks.get(chunk.task_id)
        if task is None or chunk.attempt != task.attempt or task.agent is None:
            self._counts["stale_chunks"] += 1
            return
        if chunk.error:
            self._attempt_failed(task, errors.from_wire(chunk.error, phase="streaming", agent_id=task.agent_id))
            return
        stream = task.stream
        if not task.chunks:
            stream.agent_id, stream.transport, stream.attempts = task.agent_id, task.transport, task.attempt
            task.first_at = self.clock.now_ns()
        fault = check_chunk(task, chunk, self.config.window)
        if fault is not None:
            self._abandon(task, "stream corrupted")
            self._end(task, fault)
            return
        if self.config.resume:
            task.delivered.extend(chunk.deltas)
        if not chunk.final:
            stream.push(chunk)
            if stream.waiting >= self.config.window and task.stall_timer is None:
                task.stall_timer = self.clock.call_later(self.config.stall_timeout, self._stalled, task)
            return
        stages = stream.stages
        stages.agent_received, stages.engine_started = chunk.received_ns, chunk.started_ns
        stages.first_chunk, stages.last_chunk = chunk.first_ns, chunk.last_ns
        stages.comparable = task.agent.info.boot_id == self._boot_id
        stages.delivered = self.clock.now_ns()
        self._end(task, None, chunk)

    def send_failed(self, task_id: str, attempt: int, error: AnywireError) -> None:
        task = self._tasks.get(task_id)
        if task is not None and task.attempt == attempt and task.agent is not None:
            self._attempt_failed(task, error)

    def _attempt_failed(self, task: Task, error: AnywireError) -> None:
        """The agent or the wire ended this attempt; decide whether another one is made."""
        agent = task.agent
        assert agent is not None
        error.task_id, error.agent_id = task.task_id, agent.agent_id
        self._release(task, error.code)
        if isinstance(error, errors.Refused):
            # It said so before doing anything: somebody else may take it, and this is no lost attempt.
            self._counts["refused"] += 1
            self.registry.block(agent)
            self._requeue(task)
            self._dispatch()
        elif isinstance(error, errors.AgentLost) or self._engine_failure_is_local(task, error):
            self._retry(task, error)
        else:
            self._end(task, error)

    def _engine_failure_is_local(self, task: Task, error: AnywireError) -> bool:
        """An engine that failed before the first token may be alone in that: another agent is worth a try."""
        if not isinstance(error, errors.EngineFailed) or task.chunks:
            return False
        return any(agent.agent_id not in task.tried for agent in self.registry.candidates(task.queued.key))

    def _retry(self, task: Task, error: AnywireError) -> None:
        """Queue it again after a lost attempt, where that is safe; else end it with ``error``."""
        task.losses += 1
        resumable = self.config.resume and task.can_resume
        if (task.chunks and not resumable) or task.losses >= self.config.max_attempts:
            self._end(task, error)
            return
        self._counts["retries"] += 1
        self._requeue(task)
        self._await_agent(task)
        self._dispatch()

    def _requeue(self, task: Task) -> None:
        task.queued = msgspec.structs.replace(task.queued, attempt=task.attempt + 1)
        self._scheduler.put_back(task.queued)

    def _await_agent(self, task: Task) -> None:
        if task.agent_timer is None and not self.registry.serves(task.queued.key):
            task.agent_timer = self.clock.call_later(self.config.agent_wait, self._no_agent, task)

    # The ends of a task

    def _answer_early(self, task: Task, answer: Chunk) -> TaskStream:
        stages = task.stream.stages
        stages.admitted = stages.delivered = self.clock.now_ns()
        task.stream.push(msgspec.structs.replace(answer, task_id=task.task_id, attempt=0, seq=0, final=True))
        self._outcomes["answered_early"] += 1
        return task.stream

    def _end(self, task: Task, error: AnywireError | None, final: Chunk | None = None) -> None:
        """The one place where a task ends."""
        del self._tasks[task.task_id]
        self._scheduler.remove(task.task_id)
        task.cancel_timers()
        code = error.code if error is not None else ""
        self._outcomes[code or "answered"] += 1
        if task.agent is not None:
            self._release(task, code)
        if error is None:
            assert final is not None
            self._by_transport[task.transport] += 1
            task.stream.push(final)
        else:
            task.stream.fail(error)
        if self._finished_hook is not None:
            self._finished_hook(record=self._record(task, code))
        if not self._tasks:
            self._idle.set()
        if len(self._scheduler) or self._held:
            self._resume_held()
            self._dispatch()

    def _record(self, task: Task, code: str) -> TaskRecord:
        kind, model = task.submission.kind, task.submission.model
        last = (task.stream.agent_id, task.stream.transport)
        size = task.queued.prompt_chars
        return TaskRecord(task.task_id, kind, model, *last, task.attempt, code, task.chunks, size, task.stream.stages)

    def _release(self, task: Task, code: str = "") -> None:
        """The attempt has left its agent."""
        agent = task.agent
        assert agent is not None
        task.agent = None
        self._on_agent[agent.agent_id].pop(task.task_id, None)
        if code in ("", "cancelled", "invalid_request"):
            agent.completed += 1
        else:
            agent.failed += 1
        now = self.clock.now_ns()
        sent = task.stream.stages.sent or now
        first_ms = (task.first_at - sent) / 1e6 if task.first_at else 0.0
        if first_ms:
            agent.latency_ema_ms += (first_ms - agent.latency_ema_ms) * (0.2 if agent.latency_ema_ms else 1.0)
        self._selector.observed(Outcome(task.task_id, agent.agent_id, code, first_ms, (now - sent) / 1e6, task.chunks))
        self.registry.release(agent)

    def _abandon(self, task: Task, reason: str) -> None:
        """Tell the agent, if one has it, to stop."""
        if task.agent is None:
            return
        hub = self._hubs[task.link]
        assert hub is not None
        try:
            hub.send(task.agent.agent_id, Cancel(self.info.hub_id, task.task_id, task.attempt, reason))
        except AnywireError as error:
            log.debug("cancel of %s not sent: %s", task.task_id, error)

    def _out_of_time(self, task: Task) -> None:
        task.deadline_timer = None
        self._abandon(task, "deadline exceeded")
        seconds = (task.queued.deadline_ns - task.queued.received_ns) / 1e9
        where = f"on agent {task.agent_id}" if task.agent is not None else "in the queue"
        self._end(task, errors.DeadlineExceeded(f"not finished within {seconds:g} s ({where})", task_id=task.task_id))

    def _no_agent(self, task: Task) -> None:
        task.agent_timer = None
        key = task.queued.key
        if task.agent is not None or self.registry.serves(key):
            return
        wait = self.config.agent_wait
        self._end(task, errors.NoAgent(f"no agent for model {key.model!r} within {wait:g} s", task_id=task.task_id))

    def _stalled(self, task: Task) -> None:
        task.stall_timer = None
        self._abandon(task, "reader stalled")
        seconds = self.config.stall_timeout
        self._end(task, errors.ReaderStalled(f"nothing was read for {seconds:g} s", task_id=task.task_id))

    # The reader

    def _was_read(self, stream: TaskStream, chunks: int) -> None:
        task = self._tasks.get(stream.task_id)
        if task is None:
            return
        if task.stall_timer is not None:
            task.stall_timer.cancel()
            task.stall_timer = None
        task.unread_credit += chunks
        if task.unread_credit * 2 < self.config.window or task.agent is None:
            return
        credit, task.unread_credit = task.unread_credit, 0
        task.outstanding += credit
        hub = self._hubs[task.link]
        assert hub is not None
        try:
            hub.send(task.agent.agent_id, Credit(self.info.hub_id, task.task_id, task.attempt, credit))
        except AnywireError as error:
            log.debug("credit for %s not sent: %s", task.task_id, error)

    # What the registry tells

    def agent_joined(self, agent: AgentView) -> None:
        self._counts["agents_joined"] += 1
        if self._joined_hook is not None:
            self._joined_hook(agent=agent)

    def link_joined(self, agent: AgentView, link: int) -> None:
        """A paused agent may be back with attempts that were given up meanwhile."""
        hub = self._hubs[link]
        for cancel in self._abandoned.pop(f"{agent.agent_id} {agent.info.incarnation} {link}", ()):
            assert hub is not None
            try:
                hub.send(agent.agent_id, cancel)
            except AnywireError as error:
                log.debug("cancel of %s not sent: %s", cancel.task_id, error)

    def link_lost(self, agent: AgentView, link: int, reason: str) -> None:
        self._counts["links_lost"] += 1
        hit = [task for task in self._on_agent.get(agent.agent_id, {}).values() if task.link == link]
        hit = [task for task in hit if task.agent is agent]
        if hit:
            cancels = [Cancel(self.info.hub_id, task.task_id, task.attempt, "link lost") for task in hit]
            self._abandoned[f"{agent.agent_id} {agent.info.incarnation} {link}"] = cancels
            while len(self._abandoned) > 256:
                del self._abandoned[next(iter(self._abandoned))]
        for task in hit:
            what = "while it streamed the answer" if task.chunks else "before it answered"
            message = f"agent {agent.agent_id} was lost over {task.transport} {what}: {reason}"
            phase: errors.Phase = "streaming" if task.chunks else "maybe_sent"
            self._attempt_failed(task, errors.AgentLost(message, phase=phase))

    def agent_lost(self, agent: AgentView, reason: str) -> None:
        self._counts["agents_lost"] += 1
        self._on_agent.pop(agent.agent_id, None)
        for task in self._tasks.values():
            if task.agent is None:
                self._await_agent(task)
        if self._lost_hook is not None:
            self._lost_hook(agent=agent, reason=reason)

    def agents_changed(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def capacity_changed(self) -> None:
        self._resume_held()
        self._dispatch()

    def _resume_held(self) -> None:
        held, self._held = self._held, []
        for queued in held:
            if queued.task_id in self._tasks:
                self._scheduler.put_back(queued)
