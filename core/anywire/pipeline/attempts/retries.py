"""What may be spent on sending tasks again, and how long they wait before it."""

from __future__ import annotations

import random
from collections import Counter

from anywire.clock import Clock
from anywire.errors import OVERLOADED, AnywireError
from anywire.failure_settings import RetryConfig
from anywire.pipeline.attempts.decide import Budget, Fail
from anywire.pipeline.tasks.retry_budget import RetryBudget, RetryBudgets
from anywire.pipeline.tasks.task import ORCHESTRATOR, Attempt, Task

LONGEST_MODEL = 80
"""Characters of a model's name in an error."""
_NOT_AGAIN = "; not sent again: the budget for retries of"
_SAYS_WHEN = OVERLOADED | {504}
"""Statuses with which an engine's ``Retry-After`` is passed on to the client."""


class Retries:
    """``rng`` draws the pauses: uniform between 0 and a bound that doubles with each failure ("full jitter": Brooker,
    "Exponential Backoff And Jitter", 2015). ``pays_for_clients``: a client may try again what has failed here, and the
    budget pays for that too."""

    def __init__(
        self,
        config: RetryConfig,
        clock: Clock,
        counts: Counter[str],
        pays_for_clients: bool,
        rng: random.Random | None = None,
    ) -> None:
        self._config, self._clock, self._counts = config, clock, counts
        self._pays_for_clients = pays_for_clients
        self._budgets = RetryBudgets(config)
        self._rng = rng or random.Random()

    def begin(self, task: Task, now_ns: int) -> None:
        """A task is sent for the first time: from now on, until it ends, it adds to its budget."""
        submission = task.submission
        task.retry_budget = budget = self._budgets.of(submission.model, submission.caller.tenant)
        budget.begin(now_ns)

    def stats(self) -> dict[str, int]:
        """What the budgets have left now, see `anywire.pipeline.tasks.retry_budget.RetryBudgets.stats`."""
        return self._budgets.stats(self._clock.now_ns())

    def attempts_told(self, attempt: Attempt, now_ns: int) -> int:
        """How many attempts the agent may make of a task, this one included: an orchestrator as many as the budget
        allows, and these are kept back for it; another agent, whose engine may send a request once more over a new
        connection, all that are left, while the budget is not used up."""
        task = attempt.task
        told, budget = max(1, task.attempts_left), task.retry_budget
        if attempt.is_hedge:
            told = 1  # what goes on beside another attempt is no retry, and costs none
        if told > 1 and budget is not None:
            if attempt.agent.info.engine == ORCHESTRATOR:
                told = min(told, 1 + budget.left(now_ns))
                attempt.kept_back = told - 1
                budget.keep_back(told - 1)
            elif budget.is_used_up(now_ns):
                told = 1
        attempt.told = told
        return told

    def budget(self, task: Task, attempt: Attempt, elsewhere: bool, models: int) -> Budget:
        """What is left after an attempt that has failed, beside what the arguments say. The pause is drawn here, once
        for each decision."""
        config, now_ns = self._config, self._clock.now_ns()
        patience = config.longest
        if task.queued.deadline_ns:
            patience = min(patience, max(0.0, (task.queued.deadline_ns - now_ns) / 1e9))
        return Budget(
            task.attempts_left - attempt.used,
            elsewhere,
            _of(task).left(now_ns) if task.retry_budget is not None else 0,
            task.submission.kind in config.repeat and not task.has_acted,
            self._rng.uniform(0, min(config.longest, config.base * 2 ** min(task.losses, 32))),
            patience,
            models,
        )

    def made(self, task: Task, error: AnywireError) -> None:
        """A task is sent again after an attempt that ended with ``error``. One that goes on where the text shown ends
        repeats nothing, and the budget does not pay for it."""
        if task.chunks:
            self._counts["resumes"] += 1
            return
        self._counts["retries"] += 1
        self._counts["repeated"] += not error.did_nothing
        _of(task).spend(1, self._clock.now_ns())

    def given_up(self, task: Task, error: AnywireError, decision: Fail, budget: Budget) -> None:
        """A task ends with ``error``. Its client is told not to try again where that would be more than the budget
        pays for; else the budget pays for that try."""
        if decision.by_budget:
            self._counts["retries_denied"] += 1
            error.exhausted = True
            if _NOT_AGAIN not in str(error):  # an orchestrator below may have said so
                model = task.submission.model[:LONGEST_MODEL]
                error.add(f"{_NOT_AGAIN} {model} is used up (pipeline.retries)")
        elif not self._pays_for_clients or task.submission.hops or task.chunks or not _may_pass(error, budget.patience):
            return
        elif task.sent + task.below > 1 or budget.attempts < 1 or budget.retries < 1:
            error.exhausted = True
        else:
            _of(task).spend(1, self._clock.now_ns())


def _of(task: Task) -> RetryBudget:
    assert task.retry_budget is not None
    return task.retry_budget


def _may_pass(error: AnywireError, patience: float) -> bool:
    """Whether a client might try again before the engine has said that it should."""
    says_when = error.status in _SAYS_WHEN and error.retry_after > patience
    return bool(error.again or error.counts_against) and not says_when
