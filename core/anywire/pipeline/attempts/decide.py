"""What follows a failed attempt: a pure decision, made in one place.

`decide` sees the task, the attempt, the error, the health of the agents and what is left of the budget, and returns one
of the decisions below. The pipeline carries it out. Another function of the same form may take its place:
`Decider` calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from anywire import errors
from anywire.boundary import Boundary
from anywire.errors import AnywireError
from anywire.pipeline.health.health import Health
from anywire.pipeline.tasks.task import Attempt, Task


class Requeue(msgspec.Struct, frozen=True):
    """Queue the task again: the attempt did nothing (it was refused), so it counts as none."""


class Retry(msgspec.Struct, frozen=True):
    """Send the task again after ``after`` seconds; what was delivered so far is nothing."""

    after: float = 0.0


class Resume(msgspec.Struct, frozen=True):
    """Send the task again to an agent that goes on where the delivered text ends."""

    after: float = 0.0


class FallBack(msgspec.Struct, frozen=True):
    """Send the task again after ``after`` seconds as the next model that may answer in place of this one, which has
    answered nothing."""

    after: float = 0.0


class Hedge(msgspec.Struct, frozen=True):
    """Leave the attempt as it is and send a second one, if an agent is free that has not tried the task; the first of
    the two to bring a token is the one shown. For an attempt that is over, or whose stream is corrupt, the built-in
    `decide` is asked instead. What `pipeline.hedging` allows is no bound of it: that is for streams that are late."""


class Fail(msgspec.Struct, frozen=True):
    """End the task with the error. ``by_budget``: it would be sent again, were the budget for retries not used up."""

    by_budget: bool = False


Decision = Requeue | Retry | Resume | FallBack | Hedge | Fail


class Budget(msgspec.Struct, frozen=True):
    """What is left: ``attempts`` that may still be sent of this task, ``retries`` that its model and tenant may still
    cost (`anywire.pipeline.tasks.retry_budget`), whether ``elsewhere`` an agent that has not tried the task serves it,
    be it busy, and does not rest (it may rest where the attempt has brought tokens), whether tasks of its kind are
    sent again although they may have been executed (``repeats``), and ``pause``: the seconds, drawn at random, that a
    task is to wait that is not sent again at once. ``patience`` is how many seconds an engine may ask for before it is
    asked again, ``models`` how many further models somebody serves that may answer in place of this one
    (`anywire.pipeline.attempts.fallbacks`)."""

    attempts: int
    elsewhere: bool
    retries: int = 1
    repeats: bool = True
    pause: float = 0.0
    patience: float = 0.0
    models: int = 0


Decide = Callable[[Task, Attempt, AnywireError, Health, Budget], Decision]

_MODELS_FAULTS = (
    errors.AgentLost,
    errors.AgentUnavailable,
    errors.EngineFailed,
    errors.ModelNotFound,
    errors.ModelStopped,
    errors.NoAgent,
    errors.NoProgress,
    errors.Refused,
    errors.StreamCorrupted,
)
"""What another model might not end with. The last of them are also said by orchestrators that are agents here."""


def decide(task: Task, attempt: Attempt, error: AnywireError, health: Health, budget: Budget) -> Decision:
    """Send again what is safe to send again: what brought no token, or can be resumed.

    - An agent that refuses has done nothing: another one is asked, and no attempt is lost. One that refuses after it
      has sent a token is taken at its word for the rest only.
    - Nothing was sent to an agent that could not be reached: a hub may find many links ended at once.
    - A lost link, or an agent that makes no progress: another attempt, or a resumed one, while the budgets last; at
      once where it is the first one and another agent is there, else after a pause. The budget for retries does not
      pay for a resumed one, which repeats nothing.
    - An engine's failure may be that machine's own: after a pause it is tried, or resumed, elsewhere, if somebody is
      there. If nobody is, and the engine says that it has too much to do and will soon have less, it is
      asked again after the time that it names.
    - Where other models may answer in its place: one of them, once nothing else is left of the above, and in time for
      each of them to have an attempt.
    - Everything else is an answer: the request is at fault, or the stream broke the rules.
    """
    decision = _as_it_is(task, attempt, error, budget)
    if not budget.models or task.chunks or not _may_repeat(error, budget):
        return decision
    is_last = isinstance(decision, Retry) and budget.attempts <= budget.models
    if is_last or (isinstance(decision, Fail) and isinstance(error, _MODELS_FAULTS)):
        after = budget.pause if task.losses else 0.0
        return FallBack(after) if budget.retries > 0 else Fail(by_budget=True)
    return decision


def _as_it_is(task: Task, attempt: Attempt, error: AnywireError, budget: Budget) -> Decision:
    """What follows as long as the task is for the same model."""
    if _cost_nothing(attempt, error):
        return Requeue()
    if error.again == "anywhere":
        # An orchestrator that is an agent here may also *say* that one of its own was lost, after trying what can be
        # tried there: that is no broken link, and counts like an engine's failure.
        said = error.phase == "streaming" and not task.chunks
        if not said or budget.elsewhere:
            at_once = budget.elsewhere and not task.losses
            return _again(task, error, budget, 0.0 if at_once else budget.pause)
    elif error.again == "elsewhere":
        if budget.elsewhere:
            return _again(task, error, budget, budget.pause)
        if error.status in errors.OVERLOADED and 0 < error.retry_after <= budget.patience:
            return _again(task, error, budget, error.retry_after + budget.pause)
    return Fail()


def _cost_nothing(attempt: Attempt, error: AnywireError) -> bool:
    """Whether the agent has refused the task, or was not reached. It gets no further one until it says that it is free,
    so that this is not repeated without end."""
    if isinstance(error, errors.Refused):
        return not attempt.chunks
    return isinstance(error, errors.AgentUnavailable) and error.phase == "not_sent"


def _may_repeat(error: AnywireError, budget: Budget) -> bool:
    return budget.attempts >= 1 and (budget.repeats or error.did_nothing)


def _again(task: Task, error: AnywireError, budget: Budget, after: float) -> Decision:
    if not _may_repeat(error, budget):
        return Fail()
    if task.chunks:
        return Resume(after) if task.can_resume else Fail()
    return Retry(after) if budget.retries > 0 else Fail(by_budget=True)


class Decider:
    """Asks ``chosen`` what follows a failed attempt, and the built-in `decide` where it fails, or wants what would show
    text twice, what the budget for retries does not pay for, or more attempts than a task has."""

    def __init__(self, chosen: Decide, health: Health, boundary: Boundary) -> None:
        self._chosen, self._health, self._boundary = chosen, health, boundary

    def decide(self, task: Task, attempt: Attempt, error: AnywireError, budget: Budget) -> Decision:
        """What is to follow. It can be carried out; raises nothing."""
        fault: Exception | str
        decision: Any
        try:
            decision = self._chosen(task, attempt, error, self._health, budget)
            if isinstance(decision, Retry | Resume | FallBack) and not 0 <= decision.after < math.inf:
                fault = f"returned {str(decision)[:80]}, which names no time"
            elif not isinstance(decision, Requeue | Retry | Resume | FallBack | Hedge | Fail):
                fault = f"returned {str(decision)[:80]!r}, which is no decision"
            elif isinstance(decision, Requeue) and not _cost_nothing(attempt, error):
                fault = f"returned {decision} for an attempt that ended with {error.code}, which counts as one"
            elif isinstance(decision, Retry | Resume | FallBack) and budget.attempts < 1:
                fault = f"returned {decision}, and the task has no attempt left"
            elif isinstance(decision, Retry | Resume | FallBack) and not task.chunks and budget.retries < 1:
                fault = f"returned {decision}, and the budget for retries is used up"
            elif not task.chunks or isinstance(decision, Fail) or _goes_on(task, decision):
                decided: Decision = decision
                return decided
            else:
                fault = f"returned {decision} for a task whose text was shown and that cannot be resumed so"
        except Exception as failure:
            fault = failure
        self._boundary.failed("decide", getattr(self._chosen, "__name__", "call"), fault, task.task_id)
        return decide(task, attempt, error, self._health, budget)


def _goes_on(task: Task, decision: Decision) -> bool:
    """Whether what the client was shown can be gone on with as ``decision`` says."""
    return task.can_resume and not isinstance(decision, Hedge | FallBack)
