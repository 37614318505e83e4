"""All open attempts of a hub: sending, credit, cancels, progress, and what comes back over which link."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from typing import Protocol

from anywire import errors
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.lease import AwakeTime
from anywire.messages import Cancel, Chunk, Credit, TaskRequest
from anywire.pipeline.attempt import Attempt
from anywire.pipeline.boundary import Boundary
from anywire.pipeline.config import PipelineConfig
from anywire.pipeline.ends import Ends
from anywire.pipeline.health import Health
from anywire.pipeline.progress import Progress, ProgressSink
from anywire.pipeline.registry import Registry
from anywire.pipeline.rooms import Rooms
from anywire.pipeline.stream import TaskStream
from anywire.pipeline.task import Task
from anywire.selector import AgentView, Outcome
from anywire.transport import Hub

log = logging.getLogger(__name__)

REMEMBERED_LINKS = 256


class AttemptsSink(ProgressSink, Protocol):
    """What the pipeline is told of its attempts."""

    def attempt_answered(self, attempt: Attempt, final: Chunk) -> None:
        """Its last chunk came; the attempt has ended."""
        ...

    def attempt_congested(self, attempt: Attempt) -> None:
        """Nothing was sent for want of room; the agent is no candidate until there is some."""
        ...

    def attempt_ended(self, outcome: Outcome) -> None:
        """A cancelled attempt has ended at its agent, and its slot is free."""
        ...


class Attempts:
    """Keeps which attempts are open at which agents, cancelled ones that have not ended there included."""

    def __init__(
        self,
        hub_id: str,
        hubs: Ends[Hub],
        registry: Registry,
        health: Health,
        boundary: Boundary,
        sink: AttemptsSink,
        awake: AwakeTime,
        counts: Counter[str],
        config: PipelineConfig,
    ) -> None:
        self._hub_id, self._hubs, self._registry, self._health = hub_id, hubs, registry, health
        self._boundary, self._sink, self._awake, self._counts, self._config = boundary, sink, awake, counts, config
        self._clock: Clock = awake.clock
        self._window = config.window
        self._keep_text = config.resume
        self.open: dict[tuple[str, int], Attempt] = {}
        """By task and number; cancelled ones until they have ended at their agent."""
        self._on_link: dict[tuple[str, int], dict[tuple[str, int], Attempt]] = {}
        self._abandoned: OrderedDict[tuple[str, int, int], list[Cancel]] = OrderedDict()
        self._suspects: OrderedDict[str, None] = OrderedDict()
        self._rooms = Rooms(registry, boundary, self._clock, counts)
        self._progress = Progress(self.open, awake, counts, config, sink)

    # Towards the agents

    def send(self, task: Task, agent: AgentView) -> None:
        """Begin an attempt; the sink hears how it ends, also when it ends here."""
        clock, stream = self._clock, task.stream
        now = clock.now_ns()
        registry, submission = self._registry, task.submission
        link = registry.link(agent)
        task.sent = number = task.sent + 1
        attempt = Attempt(task, number, agent, link, self._window, now)
        agent_id, key, place = attempt.agent_id, attempt.key, attempt.place
        task.place = "running"
        task.attempts[number] = attempt
        task.tried.add(agent_id)
        if task.leader is None:
            task.leader = attempt
            task.agent_id = agent_id
            stream.stages.selected = now
        request = TaskRequest(
            self._hub_id,
            task.task_id,
            number,
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
        self.open[key] = attempt
        on_link = self._on_link.get(place)
        if on_link is None:
            self._on_link[place] = on_link = {}
        on_link[key] = attempt
        attempt.lease = registry.lease(agent_id, link)
        registry.acquire(agent)
        if not self._health.all_ok:
            self._health.sent(agent_id)
            self._health.sent(place)
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
        except errors.Congested:
            self.finish(attempt, None)
            self._say_nothing_of_health(attempt)
            self._counts["congested"] += 1
            if hub is not None:
                self._rooms.wait(hub, agent)
            self._sink.attempt_congested(attempt)
        except AnywireError as error:
            self._sink.attempt_failed(attempt, error, True)
        except Exception as error:
            self._boundary.failed(f"transport {attempt.transport}", "send", error, task.task_id)
            failure = errors.AgentUnavailable(f"the transport {attempt.transport} failed: {error}", phase="maybe_sent")
            self._sink.attempt_failed(attempt, failure, True)
        else:
            self._rooms.found(agent_id)

    def cancel(self, attempt: Attempt, reason: str) -> None:
        """Ask its agent to stop. The attempt leaves its task; its slot stays taken until the agent has ended it."""
        if attempt.cancelled or attempt.state == "ended":
            return
        attempt.cancelled = True
        self._leave_task(attempt)
        self._say(attempt, Cancel(self._hub_id, attempt.task.task_id, attempt.number, reason))

    def finish(self, attempt: Attempt, code: str | None) -> Outcome | None:
        """The one place where an attempt ends: its slot is free. ``code`` is the error's, empty for an answer, None
        when nothing was sent. Runs no plugin: the outcome is the caller's to pass on."""
        key, place = attempt.key, attempt.place
        self.open.pop(key, None)
        on_link = self._on_link.get(place)
        if on_link is not None:
            on_link.pop(key, None)
            if not on_link:
                del self._on_link[place]
        self._leave_task(attempt)
        attempt.state = "ended"
        outcome = attempt.outcome(code, self._clock.now_ns()) if code is not None else None
        self._registry.release(attempt.agent)
        return outcome

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
        self._say(attempt, Credit(self._hub_id, task.task_id, attempt.number, credit))

    def close(self) -> None:
        self._rooms.close()
        self._progress.close()

    # What comes back

    def chunk_received(self, link: int, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        """Take in what came by a link; what belongs to no open attempt on it is dropped."""
        attempt = self.open.get((chunk.task_id, chunk.attempt))
        if attempt is None:
            self._counts["stale_chunks"] += 1
            return
        if attempt.agent_id != agent_id or attempt.link != link or attempt.incarnation != incarnation:
            self._suspect(agent_id, "a chunk of a task that was not sent to it")
            return
        if attempt.lease is not None:
            attempt.lease.heard()
        if attempt.cancelled:
            if chunk.final:
                self._end_cancelled(attempt)
            return
        task = attempt.task
        if chunk.error:
            try:
                error = errors.from_wire(chunk.error, phase="streaming", agent_id=agent_id)
            except errors.StreamCorrupted as unreadable:
                error = unreadable
            self._sink.attempt_failed(attempt, error, True)
            return
        if not (chunk.deltas or chunk.final or chunk.extra) and chunk.seq == attempt.next_seq:
            if attempt.state == "sent":
                attempt.state = "accepted"
                attempt.moved = True
            return
        attempt.moved = True
        if chunk.seq != attempt.next_seq or (attempt.outstanding <= 0 and not chunk.final):
            self._sink.attempt_failed(attempt, attempt.corruption(chunk), chunk.final)
            return
        if attempt.state != "streaming":
            self._begin_streaming(attempt, chunk)
        attempt.next_seq += len(chunk.deltas)
        attempt.chunks += 1
        attempt.outstanding -= 1
        task.chunks += 1
        if chunk.extra:
            task.plain = False
        if self._keep_text:
            task.delivered.extend(chunk.deltas)
        if chunk.final:
            self._sink.attempt_answered(attempt, chunk)
            return
        stream = task.stream
        stream.push(chunk)
        # Without credit left, more than half a window waits for the reader.
        full = attempt.outstanding <= 0 or (task.sent > 1 and stream.waiting >= self._window)
        if full and not task.stalled_due:
            task.stalled_due = self._awake.now() + self._config.reader_timeout

    def send_failed(
        self, link: int, agent_id: str, incarnation: int, key: tuple[str, int], error: AnywireError
    ) -> None:
        """What a transport says of an attempt after it was sent."""
        attempt = self.open.get(key)
        if (
            attempt is None
            or attempt.link != link
            or attempt.agent_id != agent_id
            or attempt.incarnation != incarnation
        ):
            self._counts["foreign_messages" if attempt is not None else "stale_chunks"] += 1
            return
        over = error.phase == "not_sent"
        if attempt.cancelled:
            if over:
                self._end_cancelled(attempt)
            return
        self._sink.attempt_failed(attempt, error, over)

    def link_joined(self, agent: AgentView, link: int) -> None:
        """A paused agent may be back with attempts that were given up meanwhile: stop them."""
        hub = self._hubs.ends[link]
        for cancel in self._abandoned.pop((agent.agent_id, agent.info.incarnation, link), ()):
            self._say_over(hub, agent.agent_id, cancel)

    def link_lost(self, agent: AgentView, link: int, reason: str) -> None:
        """End every attempt on that link."""
        self._rooms.found(agent.agent_id)
        hit = [
            attempt
            for attempt in self._on_link.get((agent.agent_id, link), {}).values()
            if attempt.incarnation == agent.info.incarnation
        ]
        if not hit:
            return
        cancels = [Cancel(self._hub_id, each.task.task_id, each.number, "link lost") for each in hit]
        self._abandoned[agent.agent_id, agent.info.incarnation, link] = cancels
        if len(self._abandoned) > REMEMBERED_LINKS:
            self._abandoned.popitem(last=False)
        for attempt in hit:
            if attempt.state == "ended":
                continue
            if attempt.cancelled:
                self._end_cancelled(attempt)
                continue
            begun = attempt.task.chunks
            what = "while it streamed the answer" if begun else "before it answered"
            message = f"agent {agent.agent_id} was lost over {attempt.transport} {what}: {reason}"
            error = errors.AgentLost(message, phase="streaming" if begun else "maybe_sent")
            self._sink.attempt_failed(attempt, error, True)

    # Inside

    def _begin_streaming(self, attempt: Attempt, chunk: Chunk) -> None:
        """Its first token: of several attempts, the first to bring one is the one shown."""
        task, stream = attempt.task, attempt.task.stream
        attempt.state = "streaming"
        attempt.first_ns = now = self._clock.now_ns()
        if chunk.final and 0 < chunk.first_ns <= chunk.last_ns:
            # A whole answer: the first token was there before, by what the agent took from the first to the last.
            attempt.first_ns = max(attempt.sent_ns + 1, now - (chunk.last_ns - chunk.first_ns))
        if len(task.attempts) > 1:
            task.leader = attempt
            stream.stages.selected, stream.stages.sent = attempt.selected_ns, attempt.sent_ns
            for other in list(task.attempts.values()):
                if other is not attempt:
                    self.cancel(other, "another attempt was quicker")
        task.resumes = attempt.resumes and self._keep_text
        task.agent_id = attempt.agent_id
        stream.agent_id, stream.transport, stream.attempts = attempt.agent_id, attempt.transport, attempt.number

    def _end_cancelled(self, attempt: Attempt) -> None:
        """A cancelled attempt has ended at its agent. What it was given up for, other than a cancel, was noted then."""
        outcome = self.finish(attempt, attempt.code)
        if attempt.code == "cancelled":
            self._say_nothing_of_health(attempt)
        if outcome is not None:
            self._sink.attempt_ended(outcome)

    def _say_nothing_of_health(self, attempt: Attempt) -> None:
        """If it was a probe, another one may be made."""
        if not self._health.all_ok:
            self._health.neutral(attempt.agent_id)
            self._health.neutral(attempt.place)

    def _leave_task(self, attempt: Attempt) -> None:
        task = attempt.task
        task.attempts.pop(attempt.number, None)
        if task.leader is attempt:
            task.leader = next(iter(task.attempts.values())) if task.attempts else None

    def _say(self, attempt: Attempt, message: Cancel | Credit) -> None:
        self._say_over(self._hubs.ends[attempt.link], attempt.agent_id, message)

    def _say_over(self, hub: Hub | None, agent_id: str, message: Cancel | Credit) -> None:
        try:
            if hub is not None:
                hub.send(agent_id, message)
        except AnywireError as error:
            log.debug("%s not sent: %s", message, error)
        except Exception as error:
            self._boundary.failed("transport", "send", error, message.task_id)

    def _suspect(self, agent_id: str, what: str) -> None:
        """Count, and log once per agent, what came from one that had no right to send it."""
        self._counts["foreign_messages"] += 1
        if agent_id in self._suspects:
            return
        self._suspects[agent_id] = None
        if len(self._suspects) > REMEMBERED_LINKS:
            self._suspects.popitem(last=False)
        log.warning("agent %s sent %s; dropped", agent_id, what)
