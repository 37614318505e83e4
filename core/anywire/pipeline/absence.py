"""Tasks whose model nobody serves: they wait for an agent, for a bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from anywire.clock import Clock
from anywire.pipeline.task import Task
from anywire.scheduler import QueueKey


class Absence:
    """Calls ``expired(task)`` when nobody has served a task's key for ``wait`` seconds on end.

    The time counts from the newest absence: it ends when an agent serves the key again.
    """

    def __init__(self, clock: Clock, wait: float, expired: Callable[[Task], None]) -> None:
        self._clock, self._wait, self._expired = clock, wait, expired
        self._tasks: dict[QueueKey, dict[str, Task]] = {}

    def begin(self, task: Task) -> None:
        """Nobody serves this task's key now. Does nothing when its time runs already."""
        if task.agent_timer is None:
            task.agent_timer = self._clock.call_later(self._wait, self._expire, task)
            self._tasks.setdefault(task.queued.key, {})[task.task_id] = task

    def end(self, task: Task) -> None:
        """Its key is served, or it waits no more; it need not have been waiting."""
        if task.agent_timer is None:
            return
        task.agent_timer.cancel()
        task.agent_timer = None
        waiting = self._tasks[task.queued.key]
        del waiting[task.task_id]
        if not waiting:
            del self._tasks[task.queued.key]

    def served(self, keys: Iterable[QueueKey]) -> None:
        """Somebody serves these keys now."""
        for key in keys:
            for task in list(self._tasks.get(key, {}).values()):
                self.end(task)

    def _expire(self, task: Task) -> None:
        self.end(task)
        self._expired(task)
