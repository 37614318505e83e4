"""A task inside the pipeline, and its attempts: what was submitted, where it is, and what was delivered of it.

A task owns its attempts; an attempt is one send of a task to one agent over one link.
"""

from __future__ import annotations

from collections.abc import Collection
from io import StringIO
from typing import Literal

from anywire import errors
from anywire.clock import Timer
from anywire.context import TaskView
from anywire.errors import AnywireError
from anywire.lease import Silence
from anywire.messages import Chunk
from anywire.offers import Offer
from anywire.pipeline.tasks.limits import Share
from anywire.pipeline.tasks.model_queue import Wait
from anywire.pipeline.tasks.noted_choice import Noted
from anywire.pipeline.tasks.retry_budget import RetryBudget
from anywire.scheduler import Outcome, QueuedTask, QueueKey
from anywire.selector import FAILED_LATENCY_MS, AgentView, Choice
from anywire.submission import Submission
from anywire.task_stream import TaskStream

AttemptState = Literal["sent", "accepted", "streaming", "ended"]


ORCHESTRATOR = "orchestrator"
"""The engine of an agent that is an orchestrator."""
NEUTRAL = frozenset(("", "cancelled", "invalid_request", "refused"))
"""Codes of ends that say nothing against the agent."""


class Attempt:
    """Its state moves one way: sent → accepted → streaming → ended.

    ``key`` is its task's id and its number, ``place`` its agent's id and its link, ``model`` the one it was sent for,
    ``digest`` that of its weights as the agent offered them then. ``accepted``: the agent has said
    that it has it; ``streaming``: a token came. ``cancelled`` is set once the agent was asked to stop: the attempt
    then stays open, and its slot taken, until the agent's final chunk or the loss of its link ends it. ``next_seq``
    is the number of the delta that is due, ``outstanding`` the chunks that the agent may still send,
    ``unread_credit`` those that were read and not credited yet. ``moved`` is set by what arrives and cleared by the
    look at progress; ``due`` is when the next progress is due, in awake seconds, ``expires`` when its answer or first
    token is, 0 for never. ``code`` is the error's that a
    cancelled attempt is counted as, ``usage`` what its final chunk said. ``waits``: its agent has said
    that it is queued or loading. ``used`` is how many attempts it stands for: more than 1 where an orchestrator is the
    agent. ``is_from_below``: it failed below that orchestrator. ``is_blameless``: an operator took it away. ``epoch``
    says which states of health were before it was sent (`anywire.pipeline.health.breaker`). ``is_hedge``: another one
    was under way when it was sent. ``in_vain``: it is a hedge that has brought no token, or was overtaken by one.
    ``reserved_for`` is the task that gets its slot, where it was preempted. ``told`` is how many attempts its agent was
    told that it may stand for, ``kept_back`` how many further ones the budget for retries keeps back for it,
    ``counted`` how many it has paid for. ``origin`` says who failed where ``code`` is an error's. ``on_link`` are the
    open attempts on its link, itself included while it is open (`anywire.pipeline.attempts.open_attempts`).
    """

    __slots__ = (
        "agent",
        "agent_id",
        "cancelled",
        "chunks",
        "code",
        "counted",
        "digest",
        "due",
        "epoch",
        "expires",
        "first_ns",
        "in_vain",
        "incarnation",
        "is_blameless",
        "is_from_below",
        "is_hedge",
        "kept_back",
        "key",
        "lease",
        "link",
        "model",
        "moved",
        "next_seq",
        "number",
        "on_link",
        "origin",
        "outstanding",
        "place",
        "reserved_for",
        "selected_ns",
        "sent_ns",
        "state",
        "task",
        "told",
        "transport",
        "unread_credit",
        "usage",
        "used",
        "waits",
        "window",
    )

    def __init__(
        self, task: Task, number: int, agent: AgentView, model: str, link: int, window: int, selected_ns: int
    ) -> None:
        self.task, self.number, self.agent, self.link, self.window = task, number, agent, link, window
        offer = agent.offers.get(model)
        self.model, self.digest = model, offer.digest if offer is not None else ""
        info = agent.info
        self.agent_id = agent_id = info.agent_id
        self.incarnation = info.incarnation
        self.key, self.place = (task.task_id, number), (agent_id, link)
        self.transport = agent.transport
        self.state: AttemptState = "sent"
        self.cancelled = self.moved = self.waits = self.is_blameless = self.is_from_below = self.is_hedge = (
            self.in_vain
        ) = False
        self.code, self.usage, self.reserved_for = "cancelled", "", ""
        self.origin: errors.Origin = "pipeline"
        self.next_seq = self.chunks = self.unread_credit = 0
        self.used = 1
        self.told = self.kept_back = self.counted = 0
        self.epoch = 0
        self.outstanding = window
        self.selected_ns, self.sent_ns, self.first_ns = selected_ns, 0, 0
        self.due = self.expires = 0.0
        self.on_link: dict[Attempt, None] = NOWHERE
        self.lease: Silence | None = None
        """Of its link, where the registry watches it: what comes by the link is a sign of life."""

    @property
    def weights(self) -> str:
        """The digest of the weights that answer. An agent that had none to tell when this was sent may since have read
        them."""
        offer = self.agent.offers.get(self.model) if not self.digest else None
        return offer.digest if offer is not None else self.digest

    @property
    def was_curbed(self) -> bool:
        """Whether an orchestrator has made all the attempts that it was allowed, and the budget allowed it fewer than
        the task has left."""
        is_orchestrator = self.agent.info.engine == ORCHESTRATOR
        return is_orchestrator and 0 < self.told <= self.used and self.told < self.task.attempts_left

    def settle(self, now_ns: int) -> None:
        """Let the budget for retries pay for the attempts that it stands for beyond itself, and give back what was kept
        for more. An agent that was told no number has a budget of its own. Safe to call again."""
        budget, further = self.task.retry_budget, self.used - 1
        if budget is not None:
            budget.give_back(self.kept_back)
            if self.told and further > self.counted:
                budget.spend(further - self.counted, now_ns)
        self.kept_back, self.counted = 0, further

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
        neutral = code in NEUTRAL or self.is_blameless or self.is_from_below
        if neutral:
            agent.completed += code != "refused"
        else:
            agent.failed += 1
        counted = first_ms or (0.0 if neutral else FAILED_LATENCY_MS)
        if counted:
            agent.latency_ema_ms += (counted - agent.latency_ema_ms) * (0.2 if agent.latency_ema_ms else 1.0)
        total_ms = (now_ns - self.sent_ns) / 1e6
        return Outcome(
            self.task.task_id, self.agent_id, code, first_ms, total_ms, self.chunks, agent_failed=not neutral
        )


NOWHERE: dict[Attempt, None] = {}
"""Of attempts that are not open yet."""

Place = Literal["queued", "held", "running", "ended"]


class Task:
    """One task from submission to its end, always in exactly one ``place``.

    ``queued``: the scheduler has it. ``held``: it waits for something else than its turn, ``why`` says for what.
    ``running``: one or more attempts are under way. ``ended``: its reader has its final chunk or its error.

    ``attempts`` are those under way by number; ``leader`` is the one whose chunks reach the reader. ``sent`` counts all
    that were sent, ``losses`` those that failed since something was delivered last. ``chunks`` counts what was
    delivered over all of them: once it is not 0, another attempt is possible only by resuming: to an agent whose offer
    of ``model`` has the same ``digest``. ``kept`` is the text kept for that, ``kept_bytes`` long; ``failure`` is the
    error that broke the stream off, while nobody goes on with it. ``tried`` are the agents that it was sent to since
    something was delivered last. ``spent`` counts the attempts that count, and
    ``below`` those that child orchestrators have made beyond the one sent to them. ``choice`` is what the selector said
    when it chose last, if it gave reasons; ``decisions`` are the choices made
    (`anywire.pipeline.observation.kept_decisions`). ``told_why`` is the reason why it is held that observers were told
    last. ``first_ns`` is when its first token came, 0 before. ``retry_after`` is the longest pause in seconds that an
    engine has asked for. ``share`` is what it takes of its caller's limits, None where nothing limits it. ``wait`` is
    set while it is counted among those that wait (`anywire.pipeline.queue.waiting`). ``is_probe``: the pipeline made
    it up to see whether an agent is well, and it is sent to no other one. ``preempted`` is how often it gave its slot
    to an urgent one. ``chain`` is what it may be sent as when the models in ``queued`` have failed, in order;
    ``fell_from`` are the models it was for before, each with the code of its failure
    (`anywire.pipeline.attempts.fallbacks`). ``retry_budget`` pays for sending it again, None before it is sent.
    ``hedged``: whether a second attempt was made because its first token was late, None before hedging has seen it.
    ``has_acted``: an agent has said that it called tools for it, which is not to be done twice.
    ``was_rescued``: services were asked for an answer in place of its error.
    """

    __slots__ = (
        "agent_id",
        "agent_timer",
        "attempts",
        "attempts_left",
        "below",
        "chain",
        "choice",
        "chunks",
        "deadline_timer",
        "decisions",
        "digest",
        "failure",
        "fell_from",
        "first_ns",
        "has_acted",
        "hedge_timer",
        "hedged",
        "is_probe",
        "kept",
        "kept_bytes",
        "leader",
        "losses",
        "model",
        "place",
        "plain",
        "preempted",
        "queued",
        "resumes",
        "retry_after",
        "retry_budget",
        "retry_timer",
        "sent",
        "share",
        "spent",
        "stalled_due",
        "stream",
        "submission",
        "task_id",
        "told_why",
        "tried",
        "wait",
        "was_rescued",
        "why",
    )

    def __init__(self, task_id: str, submission: Submission, queued: QueuedTask, stream: TaskStream) -> None:
        self.task_id, self.submission, self.queued, self.stream = task_id, submission, queued, stream
        self.place: Place = "queued"
        self.why = self.told_why = ""
        self.attempts: dict[int, Attempt] = {}
        self.leader: Attempt | None = None
        self.sent = self.losses = self.chunks = self.attempts_left = self.first_ns = 0
        self.spent = self.below = self.kept_bytes = self.preempted = 0
        self.agent_id = self.model = self.digest = ""
        self.chain: tuple[QueueKey, ...] = ()
        self.fell_from: tuple[tuple[str, str], ...] = ()
        self.choice: Choice | None = None
        self.decisions: tuple[Noted, ...] = ()
        self.share: Share | None = None
        self.wait: Wait | None = None
        self.retry_budget: RetryBudget | None = None
        self.plain = True
        self.resumes = self.is_probe = self.has_acted = self.was_rescued = False
        self.hedged: bool | None = None
        self.kept: StringIO | None = None
        self.failure: AnywireError | None = None
        self.tried: set[str] = set()
        self.stalled_due = self.retry_after = 0.0
        self.deadline_timer: Timer | None = None
        self.agent_timer: Timer | None = None
        self.retry_timer: Timer | None = None
        self.hedge_timer: Timer | None = None

    def goes_on(self, submission: Submission) -> None:
        """Take over what its reader has of the answer already (`Submission.resume`)."""
        text = submission.resume
        self.kept, self.kept_bytes = StringIO(), len(text.encode(errors="replace"))
        self.kept.write(text)
        self.chunks, self.resumes = 1, True
        self.model, self.digest = submission.model, submission.digest

    @property
    def can_resume(self) -> bool:
        """Whether what was delivered is plain text, all that another engine of this sort can be told to go on from."""
        return self.resumes and self.plain and self.submission.stream

    @property
    def text(self) -> str:
        """The text delivered so far, as far as it is kept for resuming."""
        return self.kept.getvalue() if self.kept is not None else ""

    def resumes_on(self, agent: AgentView) -> bool:
        """Whether this agent could go on with what was delivered."""
        offer = agent.offers.get(self.model)
        return offer is not None and self.resumes_with(offer, agent.info.capabilities)

    def resumes_with(self, offer: Offer, capabilities: Collection[str]) -> bool:
        """Whether an agent of these capabilities could go on with what was delivered, by its offer of the model: the
        same weights, and a way to go on from a text."""
        return offer.digest == self.digest and offer.resumes(capabilities)

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
        if self.hedge_timer is not None:
            self.hedge_timer.cancel()
            self.hedge_timer = None


def task_view(task: Task, now_ns: int) -> TaskView:
    """A task that has not ended, as lists show it."""
    submission, queued, leader = task.submission, task.queued, task.leader
    agent_id = transport = ""
    number = task.sent
    if leader is not None:
        agent_id, transport, number = leader.agent_id, leader.transport, leader.number
    return TaskView(
        task.task_id,
        submission.kind,
        submission.model,
        task.place,
        task.why,
        (now_ns - queued.received_ns) / 1e6,
        agent_id,
        transport,
        number,
        task.chunks,
        submission.priority,
        queued.session,
        queued.parent,
        submission.caller,
    )
