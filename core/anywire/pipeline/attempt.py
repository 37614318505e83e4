"""An attempt: one send of a task to one agent over one link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from anywire import errors
from anywire.lease import Silence
from anywire.messages import Chunk
from anywire.selector import FAILED_LATENCY_MS, AgentView, Outcome

if TYPE_CHECKING:
    from anywire.pipeline.task import Task

AttemptState = Literal["sent", "accepted", "streaming", "ended"]


NEUTRAL = frozenset(("", "cancelled", "invalid_request", "refused"))
"""Codes of ends that say nothing against the agent."""


class Attempt:
    """Its state moves one way: sent → accepted → streaming → ended.

    ``key`` is its task's id and its number, ``place`` its agent's id and its link. ``accepted``: the agent has said
    that it has it; ``streaming``: a token came. ``cancelled`` is set once the agent was asked to stop: the attempt
    then stays open, and its slot taken, until the agent's final chunk or the loss of its link ends it. ``next_seq``
    is the number of the delta that is due, ``outstanding`` the chunks that the agent may still send,
    ``unread_credit`` those that were read and not credited yet. ``moved`` is set by what arrives and cleared by the
    look at progress; ``due`` is when the next progress is due, in awake seconds. ``code`` is the error's that a
    cancelled attempt is counted as.
    """

    __slots__ = (
        "agent",
        "agent_id",
        "cancelled",
        "chunks",
        "code",
        "due",
        "first_ns",
        "incarnation",
        "key",
        "lease",
        "link",
        "moved",
        "next_seq",
        "number",
        "outstanding",
        "place",
        "resumes",
        "selected_ns",
        "sent_ns",
        "state",
        "task",
        "transport",
        "unread_credit",
        "window",
    )

    def __init__(self, task: Task, number: int, agent: AgentView, link: int, window: int, selected_ns: int) -> None:
        self.task, self.number, self.agent, self.link, self.window = task, number, agent, link, window
        info = agent.info
        self.agent_id = agent_id = info.agent_id
        self.incarnation = info.incarnation
        self.key, self.place = (task.task_id, number), (agent_id, link)
        self.transport = agent.transport
        self.resumes = "resume" in info.capabilities
        self.state: AttemptState = "sent"
        self.cancelled = self.moved = False
        self.code = "cancelled"
        self.next_seq = self.chunks = self.unread_credit = 0
        self.outstanding = window
        self.selected_ns, self.sent_ns, self.first_ns = selected_ns, 0, 0
        self.due = 0.0
        self.lease: Silence | None = None
        """Of its link, where the registry watches it: what comes by the link is a sign of life."""

    def corruption(self, chunk: Chunk) -> errors.StreamCorrupted:
        """What is wrong with a chunk that is out of order or beyond the credit given."""
        if chunk.seq != self.next_seq:
            kind = "a gap" if chunk.seq > self.next_seq else "a duplicate"
            what = f"{kind} in the stream: delta {chunk.seq} came, {self.next_seq} was due"
        else:
            what = f"more came than the {self.window} chunks there was credit for"
        message = f"{what} (agent {self.agent_id})"
        return errors.StreamCorrupted(message, phase="streaming", agent_id=self.agent_id, task_id=self.task.task_id)

    def outcome(self, code: str, now_ns: int) -> Outcome:
        """How it ended at ``now_ns``; ``code`` is the error's, empty for an answer. Counts it at its agent."""
        agent = self.agent
        first_ms = (self.first_ns - self.sent_ns) / 1e6 if self.first_ns else 0.0
        if code in NEUTRAL:
            agent.completed += code != "refused"
        else:
            agent.failed += 1
        counted = first_ms or (FAILED_LATENCY_MS if code not in NEUTRAL else 0.0)
        if counted:
            agent.latency_ema_ms += (counted - agent.latency_ema_ms) * (0.2 if agent.latency_ema_ms else 1.0)
        total_ms = (now_ns - self.sent_ns) / 1e6
        return Outcome(self.task.task_id, self.agent_id, code, first_ms, total_ms, self.chunks)
