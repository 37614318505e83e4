"""Deadlines of tasks: those of the default time share one timer, because a timer costs as much as queueing a task."""

from __future__ import annotations

import math
from collections.abc import Callable

from anywire import errors
from anywire.clock import Clock, Timer
from anywire.errors import AnywireError
from anywire.pipeline.tasks.task import Task


class Deadlines:
    """Calls ``give_up(task, error)`` once when a task's deadline has passed, unless it was removed before.

    Tasks with the ``default`` time (seconds) fall due in the order in which they came: one timer runs, for the first of
    them. A task with another time has a timer of its own, `Task.deadline_timer`.
    """

    def __init__(self, clock: Clock, default: float, give_up: Callable[[Task, AnywireError], None]) -> None:
        self._clock, self._default, self._give_up = clock, default, give_up
        self._tasks: dict[str, Task] = {}
        self._timer: Timer | None = None

    def add(self, task: Task, seconds: float) -> None:
        """Watch a task that was received just now; ``seconds`` may be infinite."""
        if seconds == math.inf:
            return
        if seconds != self._default:
            task.deadline_timer = self._clock.call_later(seconds, self._expire, task)
            return
        self._tasks[task.task_id] = task
        if self._timer is None:
            self._timer = self._clock.call_later(seconds, self._look)

    def remove(self, task: Task) -> None:
        """Watch a task no more; it need not be watched."""
        self._tasks.pop(task.task_id, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now, due = self._clock.now_ns(), []
        for task in self._tasks.values():
            left = task.queued.deadline_ns - now
            if left > 0:
                self._timer = self._clock.call_later(left / 1e9, self._look)
                break
            due.append(task)
        for task in due:
            if self._tasks.pop(task.task_id, None) is not None:
                self._expire(task)

    def _expire(self, task: Task) -> None:
        task.deadline_timer = None
        seconds = (task.queued.deadline_ns - task.queued.received_ns) / 1e9
        where = "in the queue"
        if task.place == "running":
            where = f"on agent {task.agent_id}" if task.agent_id else task.why
        message = f"deadline exceeded: not finished within {seconds:g} s ({where})"
        self._give_up(task, errors.DeadlineExceeded(message))
