"""A task inside the pipeline: what was submitted, where it is, its attempts, and what was delivered of it."""

from __future__ import annotations

from typing import Literal

from anywire.clock import Timer
from anywire.pipeline.attempt import Attempt
from anywire.pipeline.stream import TaskStream
from anywire.scheduler import QueuedTask
from anywire.submission import Submission

Place = Literal["queued", "held", "running", "ended"]


class Task:
    """One task from submission to its end, always in exactly one ``place``.

    ``queued``: the scheduler has it. ``held``: it waits for something else than its turn, ``why`` says for what.
    ``running``: one or more attempts are under way. ``ended``: its reader has its final chunk or its error.

    ``attempts`` are those under way by number; ``leader`` is the one whose chunks reach the reader. ``sent`` counts all
    that were sent, ``losses`` those that failed. ``chunks`` counts what was delivered over all of them: once it is
    not 0, another attempt is possible only by resuming.
    """

    __slots__ = (
        "agent_id",
        "agent_timer",
        "attempts",
        "chunks",
        "deadline_timer",
        "delivered",
        "leader",
        "losses",
        "place",
        "plain",
        "queued",
        "resumes",
        "retry_timer",
        "sent",
        "stalled_due",
        "stream",
        "submission",
        "task_id",
        "tried",
        "why",
    )

    def __init__(self, task_id: str, submission: Submission, queued: QueuedTask, stream: TaskStream) -> None:
        self.task_id, self.submission, self.queued, self.stream = task_id, submission, queued, stream
        self.place: Place = "queued"
        self.why = ""
        self.attempts: dict[int, Attempt] = {}
        self.leader: Attempt | None = None
        self.sent = self.losses = self.chunks = 0
        self.agent_id = ""
        self.plain = True
        self.resumes = False
        self.delivered: list[str] = []
        self.tried: set[str] = set()
        self.stalled_due = 0.0
        self.deadline_timer: Timer | None = None
        self.agent_timer: Timer | None = None
        self.retry_timer: Timer | None = None

    @property
    def can_resume(self) -> bool:
        """Whether what was delivered is plain text, all that another engine of this sort can be told to go on from."""
        return self.resumes and self.plain and self.submission.stream

    def cancel_timers(self) -> None:
        if self.deadline_timer is not None:
            self.deadline_timer.cancel()
            self.deadline_timer = None
        if self.agent_timer is not None:
            self.agent_timer.cancel()
            self.agent_timer = None
        if self.retry_timer is not None:
            self.retry_timer.cancel()
            self.retry_timer = None
