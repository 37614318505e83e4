"""Hedging: a stream whose first token is late is sent a second time, and the attempt that brings a token first is
shown. (Dean and Barroso, "The Tail at Scale", 2013.)

Late is what takes longer than a percentile of the model's last times to the first token, as measured here. How many
tasks may be sent a second time is a share of all: each task adds that share to a budget that a hedge takes one from.
"""

from __future__ import annotations

from collections import Counter

from anywire.clock import Clock
from anywire.failure_settings import HedgingConfig
from anywire.pipeline.dispatcher import Dispatcher
from anywire.pipeline.first_tokens import FirstTokens
from anywire.pipeline.task import Attempt, Task

MOST_SAVED = 10.0
"""Hedges that a long time without any can save up."""


class Hedging:
    """There is none where ``config.share`` is 0."""

    def __init__(self, config: HedgingConfig, dispatcher: Dispatcher, clock: Clock, counts: Counter[str]) -> None:
        self._config, self._dispatcher, self._clock, self._counts = config, dispatcher, clock, counts
        self._saved = 0.0
        self._first_tokens = FirstTokens()
        self.wasted_s = 0.0
        """Seconds that attempts ran which were not the quicker ones."""

    def sent(self, attempt: Attempt) -> None:
        """An attempt is on its way."""
        task = attempt.task
        if task.sent > 1 or not task.submission.stream or task.is_probe:
            return
        self._saved = min(MOST_SAVED, self._saved + self._config.share)
        late = self._first_tokens.percentile(attempt.model, self._config.percentile)
        if late is not None:
            pause = max(late, self._config.least)
            task.hedge_timer = self._clock.call_later(pause, self._late, task, attempt)

    def streaming(self, attempt: Attempt) -> None:
        """Its first token came: where it is the second attempt, hedging has won."""
        task = attempt.task
        if task.hedge_timer is not None:
            task.hedge_timer.cancel()
            task.hedge_timer = None
        self._first_tokens.note(attempt.model, (attempt.first_ns - attempt.sent_ns) / 1e9)
        if attempt.is_hedge:
            self._counts["hedges_won"] += 1

    def lost(self, attempt: Attempt) -> None:
        """Another attempt was quicker than this one."""
        self.wasted_s += (self._clock.now_ns() - attempt.sent_ns) / 1e9

    def _late(self, task: Task, attempt: Attempt) -> None:
        task.hedge_timer = None
        if self._saved < 1 or attempt.state not in ("sent", "accepted") or attempt.cancelled or len(task.attempts) > 1:
            return
        if self._dispatcher.hedge(task):
            self._saved -= 1
            self._counts["hedges"] += 1
