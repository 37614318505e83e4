"""What agents say of attempts: chunks, progress, and what a transport notices after a message was sent."""

from __future__ import annotations

from collections import Counter
from io import StringIO

from anywire import errors, messages
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.lease import AwakeTime
from anywire.messages import Chunk
from anywire.pipeline.attempts.attempts import Attempts, AttemptsSink
from anywire.pipeline.attempts.hedging import Hedging
from anywire.pipeline.attempts.open_attempts import OpenAttempts
from anywire.pipeline.fleet import claims
from anywire.pipeline.observation.observation import Observation
from anywire.pipeline.services.dropped import Dropped
from anywire.pipeline.tasks.task import ORCHESTRATOR, Attempt, Task
from anywire.pipeline_settings import PipelineConfig

_WAITING = frozenset(("queued", "loading"))
_BELOW = frozenset(("client", "transport", "agent", "engine"))


class Incoming:
    """Takes in what came by a link; what belongs to no open attempt on it is dropped.

    Values out of type or bounds, or out of order, end the attempt whose agent sent them, and nothing else.
    """

    def __init__(
        self,
        hub_id: str,
        attempts: Attempts,
        open_attempts: OpenAttempts,
        sink: AttemptsSink,
        awake: AwakeTime,
        counts: Counter[str],
        dropped: Dropped,
        config: PipelineConfig,
        observation: Observation,
        hedging: Hedging | None,
    ) -> None:
        self._hedging = hedging
        self._hub_id, self._attempts, self._open, self._sink = hub_id, attempts, open_attempts.by_key, sink
        self._open_attempts = open_attempts
        self._awake, self._counts, self._dropped, self._observation = awake, counts, dropped, observation
        self._clock: Clock = awake.clock
        self._window, self._config = config.window, config
        self._resume_bytes = config.resume_bytes if config.resume else 0

    def chunk_received(self, link: int, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        try:
            attempt = self._open.get((chunk.task_id, chunk.attempt))
            is_foreign = chunk.hub_id != self._hub_id
        except (AttributeError, TypeError):
            self._dropped.claim(agent_id, "what is no chunk of a task")
            return
        if attempt is None and not is_foreign:
            self._counts["stale_chunks"] += 1
            return
        if (
            attempt is None
            or is_foreign
            or attempt.agent_id != agent_id
            or attempt.link != link
            or attempt.incarnation != incarnation
        ):
            self._dropped.foreign(agent_id, "a chunk of a task that was not sent to it")
            return
        if attempt.lease is not None:
            attempt.lease.heard()
        fault = claims.check_chunk(chunk)
        if fault:
            self._claim(attempt, fault, chunk)
            return
        if chunk.final:
            used = max(1, chunk.attempts_used)
            attempt.used = min(used, attempt.told) if attempt.told else used
        if attempt.cancelled:
            if chunk.final:
                if attempt.in_vain:
                    attempt.usage, attempt.next_seq = chunk.usage, chunk.seq + len(chunk.deltas)
                self._attempts.end_cancelled(attempt)
            return
        if chunk.error:
            try:
                error = errors.from_wire(chunk.error, phase="streaming", agent_id=agent_id)
            except errors.StreamCorrupted as unreadable:
                error = unreadable
            else:
                attempt.is_from_below = attempt.agent.info.engine == ORCHESTRATOR and error.origin in _BELOW
            self._sink.attempt_failed(attempt, error, True)
            return
        if not (chunk.deltas or chunk.final or chunk.extra) and chunk.seq == attempt.next_seq:
            if attempt.state == "sent":
                attempt.state = "accepted"
                attempt.moved = True
                self._observation.attempt_accepted(attempt)
            return
        attempt.moved = True
        if chunk.seq != attempt.next_seq or (attempt.outstanding <= 0 and not chunk.final):
            self._sink.attempt_failed(attempt, attempt.corruption(chunk), chunk.final)
            return
        if attempt.state == "streaming" and not chunk.final:
            self._take_in(attempt, chunk)
            return
        self._observation.hold()
        try:
            if attempt.state != "streaming":
                self._begin_streaming(attempt, chunk)
            self._take_in(attempt, chunk)
        finally:
            self._observation.release()

    def progress_received(self, link: int, agent_id: str, incarnation: int, progress: messages.Progress) -> None:
        """What an attempt does. Being queued or loading is no silence; it says that the agent has the attempt."""
        attempt = self._open.get((progress.task_id, progress.attempt))
        if attempt is None:
            self._counts["stale_chunks"] += 1
            return
        if attempt.agent_id != agent_id or attempt.link != link or attempt.incarnation != incarnation:
            self._dropped.foreign(agent_id, "the progress of a task that was not sent to it")
            return
        fault = claims.check_progress(progress)
        if fault:
            self._dropped.claim(agent_id, fault)
            return
        if attempt.cancelled:
            return
        if attempt.lease is not None:
            attempt.lease.heard()
        accepted, attempt.moved = attempt.state == "sent", True
        if accepted:
            attempt.state = "accepted"
        attempt.waits = progress.state in _WAITING
        task = attempt.task
        task.has_acted = task.has_acted or progress.state == "tool"
        self._observation.hold()
        try:
            if accepted:
                self._observation.attempt_accepted(attempt)
            self._observation.attempt_progressed(attempt, progress)
            if task.submission.progress and attempt is task.leader:
                task.stream.progressed(progress)
        finally:
            self._observation.release()

    def send_failed(
        self, link: int, agent_id: str, incarnation: int, key: tuple[str, int], error: AnywireError
    ) -> None:
        """What a transport says of an attempt after it was sent."""
        attempt = self._open.get(key)
        if attempt is None:
            self._counts["stale_chunks"] += 1
            return
        if attempt.link != link or attempt.agent_id != agent_id or attempt.incarnation != incarnation:
            self._dropped.foreign(agent_id, "a failure of a task that was not sent to it")
            return
        over = error.phase == "not_sent"
        if attempt.cancelled:
            if over:
                self._attempts.end_cancelled(attempt)
            return
        self._sink.attempt_failed(attempt, error, over)

    # Inside

    def _take_in(self, attempt: Attempt, chunk: Chunk) -> None:
        """Count a chunk that is in order, and hand it to the reader."""
        task = attempt.task
        attempt.next_seq += len(chunk.deltas)
        attempt.chunks += 1
        attempt.outstanding -= 1
        task.chunks += 1
        if chunk.extra:
            task.plain = False
        if task.resumes:
            self._keep(task, chunk)
        if chunk.final:
            attempt.usage = chunk.usage
            self._sink.attempt_answered(attempt, chunk)
            return
        stream = task.stream
        stream.push(chunk)
        # Without credit left, more than half a window waits for the reader.
        full = attempt.outstanding <= 0 or (task.sent > 1 and stream.waiting >= self._window)
        if full and not task.stalled_due:
            task.stalled_due = self._awake.now() + self._config.reader_timeout

    def _begin_streaming(self, attempt: Attempt, chunk: Chunk) -> None:
        """Its first token: of several attempts, the first to bring one is the one shown."""
        task, stream = attempt.task, attempt.task.stream
        attempt.state = "streaming"
        attempt.first_ns = now = self._clock.now_ns()
        if chunk.final and 0 < chunk.first_ns <= chunk.last_ns:
            # A whole answer: the first token was there before, by what the agent took from the first to the last.
            attempt.first_ns = max(attempt.sent_ns + 1, now - (chunk.last_ns - chunk.first_ns))
        task.first_ns = task.first_ns or attempt.first_ns
        if len(task.attempts) > 1:
            task.leader = attempt
            stream.stages.selected, stream.stages.sent = attempt.selected_ns, attempt.sent_ns
            for other in list(task.attempts.values()):
                if other is not attempt:
                    self._overtake(other)
        if attempt.is_hedge:
            attempt.in_vain = False
            self._counts["hedges_won"] += 1
        if self._hedging is not None and task.submission.stream:
            self._hedging.streaming(attempt)
        task.resumes = chunk.resumable is True and self._resume_bytes > 0 and task.kept_bytes <= self._resume_bytes
        if not task.chunks:
            task.model, task.digest = attempt.model, attempt.weights if task.resumes else ""
        task.failure = None
        task.agent_id = attempt.agent_id
        stream.agent_id, stream.transport, stream.attempts = attempt.agent_id, attempt.transport, attempt.number
        stream.model, stream.weights = attempt.model, task.digest if task.resumes else None
        self._observation.attempt_streaming(attempt)

    def _overtake(self, other: Attempt) -> None:
        """Another attempt of its task was quicker: it is stopped, and nothing is said against its agent, which may be
        asked to go on with the task if the other one is lost."""
        other.in_vain = True
        other.task.tried.discard(other.agent_id)
        if self._hedging is not None:
            self._hedging.overtaken(other)
        self._open_attempts.cancel(other, "another attempt was quicker")

    def _keep(self, task: Task, chunk: Chunk) -> None:
        """Keep the text for resuming, as far as ``pipeline.resume_bytes`` allows. In one buffer: a list of tokens takes
        many times their size."""
        deltas = chunk.deltas
        text = deltas[0] if len(deltas) == 1 else "".join(deltas)
        task.kept_bytes += len(text) if text.isascii() else len(text.encode(errors="replace"))
        if task.kept_bytes > self._resume_bytes:
            task.resumes, task.kept = False, None
            return
        kept = task.kept
        if kept is None:
            kept = task.kept = StringIO()
        kept.write(text)

    def _claim(self, attempt: Attempt, fault: str, chunk: Chunk) -> None:
        """Its own agent sends nonsense: the attempt is over."""
        agent_id = attempt.agent_id
        self._dropped.claim(agent_id, fault)
        is_over = chunk.final is True
        if not attempt.cancelled:
            error = errors.StreamCorrupted(f"agent {agent_id} sent {fault}", phase="streaming", agent_id=agent_id)
            self._sink.attempt_failed(attempt, error, is_over)
        elif is_over:
            self._attempts.end_cancelled(attempt)
