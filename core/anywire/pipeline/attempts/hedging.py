"""Hedging: a stream whose first token is late is sent a second time, and the attempt that brings a token first is
shown. (Dean and Barroso, "The Tail at Scale", 2013.)

Late is what takes longer than a percentile of the model's last times to the first token, as measured here. How many
tasks may be sent a second time is a share of all: each task adds that share to a budget that a hedge takes one from.
So at any time there were at most ``share`` times as many hedges as tasks.

A hedge ends in one of four ways. It brings the first token (it has won), the other attempt does (that attempt goes on
alone), it fails or is refused (likewise), or its task ends. A first attempt that fails meanwhile leaves the task to it:
nothing is sent again then.
"""

from __future__ import annotations

from collections.abc import Collection

from anywire.clock import Clock
from anywire.failure_settings import HedgingConfig
from anywire.messages import Kind
from anywire.pipeline.attempts.first_tokens import FirstTokens
from anywire.pipeline.queue.dispatcher import Dispatcher
from anywire.pipeline.tasks.task import Attempt, Task

MOST_SAVED = 10.0
"""Hedges that a long time without any can save up."""


class Hedging:
    """Says when a stream is late, and has it sent again. ``kinds`` are those of tasks that may be run twice. A task
    that may be sent once only (``max_attempts: 1``, or its parent's last attempt) is never hedged, and no task twice.
    """

    def __init__(self, config: HedgingConfig, kinds: Collection[Kind], dispatcher: Dispatcher, clock: Clock) -> None:
        self._config, self._kinds, self._dispatcher, self._clock = config, frozenset(kinds), dispatcher, clock
        self._saved = 0.0
        self._first_tokens = FirstTokens()

    def sent(self, attempt: Attempt) -> None:
        """An attempt is on its way."""
        task = attempt.task
        if attempt.is_hedge:
            self._saved = max(0.0, self._saved - 1)
            task.hedged = True
            return
        if not task.submission.stream or task.submission.kind not in self._kinds or task.is_probe:
            return
        if task.queued.key.uses_servers:
            return  # two attempts would call tools twice
        if task.hedged is None:
            task.hedged = False
            self._saved = min(MOST_SAVED, self._saved + self._config.share)
        _stop_timer(task)
        # The transport may have brought its end before `send` returned.
        if task.hedged or task.chunks or task.attempts_left < 2 or task.leader is not attempt:
            return
        late = self._first_tokens.percentile(attempt.model, self._config.percentile)
        if late is not None:
            pause = max(late, self._config.least)
            task.hedge_timer = self._clock.call_later(pause, self._late, task, attempt)

    def streaming(self, attempt: Attempt) -> None:
        """Its first token came."""
        task = attempt.task
        _stop_timer(task)
        # A hedge's own time says nothing of how long a task takes that was not late.
        if not (attempt.is_hedge or task.chunks):
            self._first_tokens.note(attempt.model, (attempt.first_ns - attempt.sent_ns) / 1e9)

    def overtaken(self, attempt: Attempt) -> None:
        """Another attempt of its task brought a token first. A first attempt counts as one that took as long as it ran
        until then: without these, late ones would be missing among the times, and ever more would seem late."""
        if not attempt.is_hedge:
            self._first_tokens.note(attempt.model, (self._clock.now_ns() - attempt.sent_ns) / 1e9)

    def _late(self, task: Task, attempt: Attempt) -> None:
        task.hedge_timer = None
        if self._saved >= 1 and task.leader is attempt and len(task.attempts) == 1:
            self._dispatcher.hedge(task)


def _stop_timer(task: Task) -> None:
    if task.hedge_timer is not None:
        task.hedge_timer.cancel()
        task.hedge_timer = None
