"""Attempts: a task on an agent, from the send to the last chunk, over whichever link it was sent."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Protocol

from anywire import errors
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.messages import Cancel, Chunk, Credit, TaskRequest
from anywire.pipeline.ends import Ends
from anywire.pipeline.registry import Registry
from anywire.pipeline.task import Task
from anywire.selector import AgentView, Outcome, Selector
from anywire.transport import Hub

log = logging.getLogger(__name__)

REMEMBERED_LINKS = 256


class AttemptsSink(Protocol):
    """What the pipeline is told of its attempts; the task has left its agent in each case."""

    def attempt_answered(self, task: Task, final: Chunk) -> None: ...
    def attempt_failed(self, task: Task, agent: AgentView, error: AnywireError) -> None:
        """The agent or the wire ended it."""
        ...

    def attempt_congested(self, task: Task) -> None:
        """Nothing was sent for want of room; the agent is no candidate until there is some."""
        ...

    def attempt_corrupted(self, task: Task, error: AnywireError) -> None:
        """Its stream broke the rules, or its reader did."""
        ...


class Attempts:
    """Keeps which task is on which agent; sends requests, credit and cancels; takes chunks in."""

    def __init__(
        self,
        hub_id: str,
        hubs: Ends[Hub],
        registry: Registry,
        selector: Selector,
        sink: AttemptsSink,
        clock: Clock,
        counts: Counter[str],
        *,
        window: int,
        stall_timeout: float,
        keep_text: bool,
    ) -> None:
        self._hub_id, self._hubs, self._registry, self._selector = hub_id, hubs, registry, selector
        self._sink, self._clock, self._counts = sink, clock, counts
        self._window, self._stall_timeout, self._keep_text = window, stall_timeout, keep_text
        self._on_agent: dict[str, dict[str, Task]] = {}
        self._abandoned: dict[tuple[str, int, int], list[Cancel]] = {}
        self._draining: set[asyncio.Task[None]] = set()

    def send(self, task: Task, agent: AgentView) -> None:
        """Begin an attempt; the sink hears how it ends, also when it ends here."""
        stages = task.stream.stages
        stages.selected = now = self._clock.now_ns()
        submission, link = task.submission, self._registry.link(agent)
        task.begin_attempt(agent, link, self._window)
        request = TaskRequest(
            self._hub_id,
            task.task_id,
            task.attempt,
            submission.kind,
            submission.model,
            submission.body,
            submission.stream,
            "".join(task.delivered),
            submission.priority,
            max(1, (task.queued.deadline_ns - now) // 1_000_000) if task.queued.deadline_ns else 0,
            self._window,
            submission.hops,
            submission.trace,
        )
        hub = self._hubs.ends[link]
        assert hub is not None
        self._registry.acquire(agent)
        self._on_agent.setdefault(agent.agent_id, {})[task.task_id] = task
        # Before the call and not after it: the agent may have the task before `send` returns.
        stages.sent = self._clock.now_ns()
        try:
            hub.send(agent.agent_id, request)
        except errors.Congested:
            self.release(task)
            self._counts["congested"] += 1
            self._wait_for_room(hub, agent)
            self._sink.attempt_congested(task)
        except AnywireError as error:
            self.release(task)
            if isinstance(error, errors.AgentUnavailable):
                self._registry.block(agent)
            self._sink.attempt_failed(task, agent, error)

    def chunk_received(self, task: Task, chunk: Chunk) -> None:
        """Take in what came for a task; what belongs to no attempt under way is dropped."""
        agent = task.agent
        if agent is None or chunk.attempt != task.attempt:
            self._counts["stale_chunks"] += 1
            return
        if chunk.error:
            error = errors.from_wire(chunk.error, phase="streaming", agent_id=task.agent_id)
            self.fail(task, error)
            return
        stream = task.stream
        if not task.first_at:
            stream.agent_id, stream.transport, stream.attempts = task.agent_id, task.transport, task.attempt
            task.first_at = self._clock.now_ns()
        fault = task.accept(chunk, self._window)
        if fault is not None:
            self.abandon(task, "stream corrupted")
            self._sink.attempt_corrupted(task, fault)
            return
        if self._keep_text:
            task.delivered.extend(chunk.deltas)
        if chunk.final:
            self._sink.attempt_answered(task, chunk)
            return
        stream.push(chunk)
        if stream.waiting >= self._window and task.stall_timer is None:
            task.stall_timer = self._clock.call_later(self._stall_timeout, self._stalled, task)

    def fail(self, task: Task, error: AnywireError) -> None:
        """End the attempt under way with what the agent or the wire said."""
        agent = task.agent
        assert agent is not None
        error.task_id, error.agent_id = task.task_id, agent.agent_id
        self.release(task, error.code)
        self._sink.attempt_failed(task, agent, error)

    def release(self, task: Task, code: str = "") -> None:
        """The attempt has left its agent, if it was on one; ``code`` is how it ended."""
        agent = task.agent
        if agent is None:
            return
        task.agent = None
        self._on_agent.get(agent.agent_id, {}).pop(task.task_id, None)
        if code in ("", "cancelled", "invalid_request"):
            agent.completed += 1
        else:
            agent.failed += 1
        now = self._clock.now_ns()
        sent = task.stream.stages.sent
        first_ms = (task.first_at - sent) / 1e6 if task.first_at else 0.0
        if first_ms:
            agent.latency_ema_ms += (first_ms - agent.latency_ema_ms) * (0.2 if agent.latency_ema_ms else 1.0)
        self._selector.observed(Outcome(task.task_id, agent.agent_id, code, first_ms, (now - sent) / 1e6, task.chunks))
        self._registry.release(agent)

    def abandon(self, task: Task, reason: str) -> None:
        """Tell the agent, if one has it, to stop."""
        if task.agent is not None:
            self._say(task.link, task.agent_id, Cancel(self._hub_id, task.task_id, task.attempt, reason))

    def was_read(self, task: Task, chunks: int) -> None:
        """The reader took so many chunks: the agent may send as many more, told in halves of the window."""
        if task.stall_timer is not None:
            task.stall_timer.cancel()
            task.stall_timer = None
        task.unread_credit += chunks
        if task.unread_credit * 2 < self._window or task.agent is None:
            return
        credit, task.unread_credit = task.unread_credit, 0
        task.outstanding += credit
        self._say(task.link, task.agent_id, Credit(self._hub_id, task.task_id, task.attempt, credit))

    def link_joined(self, agent: AgentView, link: int) -> None:
        """A paused agent may be back with attempts that were given up meanwhile: stop them."""
        for cancel in self._abandoned.pop((agent.agent_id, agent.info.incarnation, link), ()):
            self._say(link, agent.agent_id, cancel)

    def link_lost(self, agent: AgentView, link: int, reason: str) -> None:
        """Fail every attempt on that link."""
        hit = [task for task in self._on_agent.get(agent.agent_id, {}).values() if task.link == link]
        if hit:
            cancels = [Cancel(self._hub_id, task.task_id, task.attempt, "link lost") for task in hit]
            self._abandoned[agent.agent_id, agent.info.incarnation, link] = cancels
            while len(self._abandoned) > REMEMBERED_LINKS:
                del self._abandoned[next(iter(self._abandoned))]
        for task in hit:
            if task.agent is not agent:
                continue
            what = "while it streamed the answer" if task.chunks else "before it answered"
            message = f"agent {agent.agent_id} was lost over {task.transport} {what}: {reason}"
            self.fail(task, errors.AgentLost(message, phase="streaming" if task.chunks else "maybe_sent"))

    def agent_lost(self, agent: AgentView) -> None:
        self._on_agent.pop(agent.agent_id, None)

    def close(self) -> None:
        for waiting in self._draining:
            waiting.cancel()

    def _say(self, link: int, agent_id: str, message: Cancel | Credit) -> None:
        hub = self._hubs.ends[link]
        try:
            if hub is not None:
                hub.send(agent_id, message)
        except AnywireError as error:
            log.debug("%s not sent: %s", message, error)

    def _wait_for_room(self, hub: Hub, agent: AgentView) -> None:
        self._registry.block(agent)

        async def wait() -> None:
            await hub.drain(agent.agent_id)
            self._registry.unblock(agent)

        waiting = asyncio.get_running_loop().create_task(wait())
        self._draining.add(waiting)
        waiting.add_done_callback(self._draining.discard)

    def _stalled(self, task: Task) -> None:
        task.stall_timer = None
        self.abandon(task, "reader stalled")
        message = f"nothing was read for {self._stall_timeout:g} s"
        self._sink.attempt_corrupted(task, errors.ReaderStalled(message, task_id=task.task_id))
