"""A task inside the pipeline: what was submitted, its current attempt, and what was delivered of it."""

from __future__ import annotations

from anywire import errors
from anywire.clock import Timer
from anywire.messages import Chunk
from anywire.pipeline.stream import TaskStream
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView
from anywire.submission import Submission


class Task:
    """One task from submission to its end. ``attempt`` numbers every send; ``losses`` counts those that failed.

    ``agent`` is set while an attempt is under way. ``chunks`` counts what was delivered to the reader over all
    attempts: once it is not 0, another attempt is possible only by resuming. ``outstanding`` is the credit the
    agent still has.
    """

    __slots__ = (
        "agent",
        "agent_id",
        "agent_timer",
        "attempt",
        "chunks",
        "deadline_timer",
        "delivered",
        "first_at",
        "link",
        "losses",
        "next_seq",
        "outstanding",
        "plain",
        "queued",
        "resumes",
        "stall_timer",
        "stream",
        "submission",
        "task_id",
        "transport",
        "tried",
        "unread_credit",
    )

    def __init__(self, task_id: str, submission: Submission, queued: QueuedTask, stream: TaskStream) -> None:
        self.task_id, self.submission, self.queued, self.stream = task_id, submission, queued, stream
        self.attempt = self.losses = self.chunks = 0
        self.next_seq = self.outstanding = self.unread_credit = 0
        self.agent: AgentView | None = None
        self.agent_id = self.transport = ""
        self.link = -1
        self.first_at = 0
        self.plain = True
        self.resumes = False
        self.delivered: list[str] = []
        self.tried: set[str] = set()
        self.deadline_timer: Timer | None = None
        self.agent_timer: Timer | None = None
        self.stall_timer: Timer | None = None

    @property
    def can_resume(self) -> bool:
        """Whether what was delivered is plain text, all that another engine of this sort can be told to go on from."""
        return self.resumes and self.plain and self.submission.stream

    def begin_attempt(self, agent: AgentView, link: int, window: int) -> None:
        self.attempt += 1
        self.agent, self.agent_id, self.transport, self.link = agent, agent.agent_id, agent.transport, link
        self.resumes = "resume" in agent.info.capabilities
        self.tried.add(agent.agent_id)
        self.next_seq = 0
        self.first_at = 0
        # What an earlier attempt delivered and the reader has not read yet still takes room.
        self.outstanding, self.unread_credit = window, 0
        if self.agent_timer is not None:
            self.agent_timer.cancel()
            self.agent_timer = None

    def accept(self, chunk: Chunk, window: int) -> errors.StreamCorrupted | None:
        """Account for a chunk of the current attempt; an error when it is out of order or beyond the credit given."""
        if chunk.seq != self.next_seq:
            kind = "a gap" if chunk.seq > self.next_seq else "a duplicate"
            return self._corrupted(f"{kind} in the stream: delta {chunk.seq} came, {self.next_seq} was due")
        self.next_seq += len(chunk.deltas)
        self.chunks += 1
        self.outstanding -= 1
        if chunk.extra:
            self.plain = False
        if self.outstanding < 0 and not chunk.final:
            return self._corrupted(f"more came than the {window} chunks there was credit for")
        return None

    def cancel_timers(self) -> None:
        for timer in (self.deadline_timer, self.agent_timer, self.stall_timer):
            if timer is not None:
                timer.cancel()

    def _corrupted(self, what: str) -> errors.StreamCorrupted:
        message = f"{what} (agent {self.agent_id})"
        return errors.StreamCorrupted(message, phase="streaming", agent_id=self.agent_id, task_id=self.task_id)
