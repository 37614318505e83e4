"""The progress of open attempts: who must do something within what time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Protocol

from anywire import errors
from anywire.clock import Timer
from anywire.errors import AnywireError
from anywire.lease import AwakeTime
from anywire.pipeline.tasks.task import Attempt, Task
from anywire.pipeline_settings import PipelineConfig

LOOK = 0.1
"""Seconds between two looks at open attempts."""
MOST = 512
"""Attempts that one look is at: of more, each has its turn every few looks. So many open streams cost no more than
some, and hold up nobody."""

_LATE = {
    "sent": ("did not accept the task", "accept_timeout"),
    "accepted": ("sent no token", "first_token_timeout"),
    "streaming": ("sent no further token", "next_token_timeout"),
}


class ProgressSink(Protocol):
    def attempt_failed(self, attempt: Attempt, error: AnywireError, over: bool) -> None:
        """It cannot bring the answer any more. ``over``: the agent has it no longer; else the attempt is still open
        there and is to be cancelled, unless the task goes on with it."""
        ...

    def reader_stalled(self, task: Task) -> None:
        """Its reader took nothing for too long."""
        ...


class ProgressWatch:
    """Looks at ``open`` attempts ten times a second, as long as there are any: at each of them, or at `MOST` in turn.

    Times are awake seconds: what comes too late because this process did not run is not late. One look at all costs
    less than a timer that is set and cancelled for each.
    """

    def __init__(
        self,
        open_attempts: Mapping[tuple[str, int], Attempt],
        awake: AwakeTime,
        counts: Counter[str],
        config: PipelineConfig,
        sink: ProgressSink,
    ) -> None:
        self._open, self._awake, self._counts, self._config, self._sink = open_attempts, awake, counts, config, sink
        self._call_within = config.breaker.call_timeout
        self._timer: Timer | None = None
        self._turn: list[Attempt] = []
        """Those that this turn has not come to yet, of the attempts that were open when it began."""

    def watch(self, attempt: Attempt) -> None:
        """An attempt is sent: it must be accepted in time."""
        if self._timer is None:
            self._awake.start()
            self._timer = self._awake.clock.call_later(LOOK, self._look)
        within = self._config.accept_timeout
        now = self._awake.now()
        attempt.due = now + (2 * attempt.agent.info.lease_ms / 1000 if within is None else within)
        if self._call_within:
            attempt.expires = now + self._call_within

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._stop()

    def _stop(self) -> None:
        self._timer = None
        self._turn = []
        self._awake.stop()

    def _look(self) -> None:
        if not self._open:
            self._stop()
            return
        self._timer = self._awake.clock.call_later(LOOK, self._look)
        if self._awake.was_away:
            return
        now = self._awake.now()
        overdue: list[Attempt] = []
        for attempt in self._next():
            if attempt.cancelled or attempt.state == "ended":
                continue
            if attempt.expires and now >= attempt.expires and attempt.state != "streaming":
                overdue.append(attempt)
            elif attempt.moved:
                attempt.moved = False
                attempt.due = now + timeout if (timeout := self._timeout(attempt)) else 0.0
            elif self._is_overdue(attempt, now):
                overdue.append(attempt)
        for attempt in overdue:
            if attempt.state != "ended" and not attempt.cancelled:
                self._end(attempt, now)

    def _next(self) -> Collection[Attempt]:
        """The attempts that this look is at."""
        if not self._turn:
            if len(self._open) <= MOST:
                return self._open.values()
            self._turn = list(self._open.values())
        found = self._turn[-MOST:]
        del self._turn[-MOST:]
        return found

    def _is_overdue(self, attempt: Attempt, now: float) -> bool:
        stalled = attempt.task.stalled_due
        if stalled and now >= stalled:
            return True
        waits_for_credit = attempt.state == "streaming" and attempt.outstanding <= 0
        return 0 < attempt.due <= now and not waits_for_credit

    def _timeout(self, attempt: Attempt) -> float:
        """Seconds that its next progress may take; 0 for as long as it likes."""
        if attempt.state == "sent":
            within = self._config.accept_timeout
            return 2 * attempt.agent.info.lease_ms / 1000 if within is None else within
        if not attempt.task.submission.stream or (attempt.state == "accepted" and attempt.waits):
            return 0.0
        config = self._config
        return config.next_token_timeout if attempt.state == "streaming" else config.first_token_timeout

    def _end(self, attempt: Attempt, now: float) -> None:
        task = attempt.task
        if task.stalled_due and now >= task.stalled_due:
            self._sink.reader_stalled(task)
            return
        timeout = self._timeout(attempt)
        attempt.due = now + timeout
        what, setting = _LATE[attempt.state]
        if attempt.expires and now >= attempt.expires:
            timeout, what, setting = self._call_within, "did not answer", "breaker.call_timeout"
            attempt.expires = 0.0  # told once, also of an attempt that is left as it is
        message = f"agent {attempt.agent_id} {what} within {timeout:g} s (pipeline.{setting})"
        self._counts["overdue"] += 1
        phase: errors.Phase = "streaming" if attempt.chunks else "maybe_sent"
        self._sink.attempt_failed(attempt, errors.NoProgress(message, phase=phase), False)
