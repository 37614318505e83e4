"""Preemption: a running stream of low priority gives its slot to an urgent task, and goes on later.

What the stream has shown stays; it is resumed from there, or, where nothing was shown yet, begins again. That costs no
attempt. Its slot is the urgent task's once its agent has ended the attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from anywire.failure_settings import PreemptionConfig
from anywire.pipeline.attempt_ends import AttemptEnds
from anywire.pipeline.dispatcher import Dispatcher
from anywire.pipeline.open_attempts import OpenAttempts
from anywire.pipeline.task import Attempt, Task


class Preemption:
    """``tasks`` are those that have not ended. Off where ``config.urgent`` is unset."""

    def __init__(
        self,
        config: PreemptionConfig,
        tasks: Mapping[str, Task],
        open_attempts: OpenAttempts,
        attempt_ends: AttemptEnds,
        dispatcher: Dispatcher,
        counts: Counter[str],
    ) -> None:
        self._config, self._tasks, self._open = config, tasks, open_attempts
        self._attempt_ends, self._dispatcher, self._counts = attempt_ends, dispatcher, counts

    def waits(self, task: Task) -> None:
        """A new task waits for its turn: if it is urgent, a stream of low priority gives its slot."""
        urgent = self._config.urgent
        if urgent is None or task.submission.priority < urgent:
            return
        attempt = min(self._giving(task), key=_rank, default=None)
        if attempt is None:
            return
        self._counts["preemptions"] += 1
        attempt.task.preempted += 1
        attempt.reserved_for = task.task_id
        self._attempt_ends.attempt_preempted(attempt)

    def ended(self, attempt: Attempt) -> None:
        """An attempt that was preempted has ended: send the task for which its slot is kept, if it still waits."""
        task = self._tasks.get(attempt.reserved_for)
        if task is not None and task.place == "queued":
            self._dispatcher.send_to(task, attempt.agent)

    def _giving(self, task: Task) -> Iterator[Attempt]:
        """The attempts whose slot would do."""
        below, most = self._config.below, self._config.most
        for attempt in self._open.by_key.values():
            other = attempt.task
            if (
                not attempt.cancelled
                and other.submission.priority <= below
                and other.preempted < most
                and len(other.attempts) == 1
                and (not other.chunks or other.can_resume)
                and any(key.model in attempt.agent.offers for key in task.queued.keys)
            ):
                yield attempt


def _rank(attempt: Attempt) -> tuple[int, int]:
    """Lowest priority first, of equals the one that has shown least."""
    return attempt.task.submission.priority, attempt.task.chunks
