"""What may be spent on sending tasks again, and how long they wait before it."""

from __future__ import annotations

import random
from collections import Counter

from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.failure_settings import RetryConfig
from anywire.pipeline.decide import Budget
from anywire.pipeline.retry_budget import RetryBudgets
from anywire.pipeline.task import Attempt, Task


class Retries:
    """``rng`` draws the pauses: uniform between 0 and a bound that doubles with each failure ("full jitter": Brooker,
    "Exponential Backoff And Jitter", 2015)."""

    def __init__(
        self, config: RetryConfig, clock: Clock, counts: Counter[str], rng: random.Random | None = None
    ) -> None:
        self._config, self._clock, self._counts = config, clock, counts
        self._budgets = RetryBudgets(config)
        self._rng = rng or random.Random()

    def task_taken_in(self, task: Task, now_ns: int) -> None:
        submission = task.submission
        self._budgets.of(submission.model, submission.caller.tenant).task(now_ns)

    def budget(self, task: Task, attempt: Attempt, elsewhere: bool, models: int) -> Budget:
        """What is left after an attempt that has failed, beside what the arguments say."""
        config = self._config
        return Budget(
            task.attempts_left - attempt.used,
            elsewhere,
            self.left(task),
            task.submission.kind in config.repeat,
            self._rng.uniform(0, min(config.longest, config.base * 2 ** min(task.losses, 32))),
            models,
        )

    def left(self, task: Task) -> int:
        """How many further attempts tasks of its model and tenant may cost now."""
        submission = task.submission
        return self._budgets.of(submission.model, submission.caller.tenant).left(self._clock.now_ns())

    def made(self, task: Task, error: AnywireError) -> None:
        """A task is sent again after an attempt that ended with ``error``."""
        self._counts["retries"] += 1
        self._counts["repeated"] += error.phase != "not_sent"
        self.spend(task, 1)

    def spend(self, task: Task, attempts: int) -> None:
        """So many further attempts were made, here or below."""
        submission = task.submission
        self._budgets.of(submission.model, submission.caller.tenant).spend(attempts, self._clock.now_ns())
