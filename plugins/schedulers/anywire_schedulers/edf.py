"""Earliest deadline first."""

from __future__ import annotations

from typing import ClassVar

import pydantic

from anywire.scheduler import QueuedTask, Ready, Scheduler, SchedulerConfig
from anywire.scheduler_tools.ranked_queues import RankedQueues


class EdfConfig(SchedulerConfig):
    patience: float = pydantic.Field(
        default=60.0,
        gt=0,
        le=1e9,
        description="Seconds after which a task that names no deadline is due.",
    )


class Edf(Scheduler):
    """The task that is due first goes first, of equals the one that came first.

    Method: earliest deadline first (Liu and Layland 1973, "Scheduling Algorithms for Multiprogramming in a
    Hard-Real-Time Environment"). When all deadlines can be met it meets them; when they cannot, it spends time on tasks
    that are too late all the same, so refuse what cannot be met at admission.

    Nobody starves: a task goes before everything that is received after it is due.

    Putting, taking and removing cost O(log n) comparisons for n waiting tasks; taking looks at each set of keys too.
    """

    name: ClassVar[str] = "edf"
    lets_pass: ClassVar[bool] = True
    Config: ClassVar[type[SchedulerConfig]] = EdfConfig

    def __init__(self, config: EdfConfig) -> None:
        super().__init__(config)
        self._patience_ns = int(config.patience * 1e9)
        self._queues: RankedQueues[QueuedTask] = RankedQueues()
        self._waiting: dict[str, QueuedTask] = {}

    def rank(self, task: QueuedTask) -> tuple[int, int]:
        """When it is due, and when it came."""
        return task.deadline_ns or task.received_ns + self._patience_ns, task.received_ns

    def put(self, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        self._queues.add(task.keys, self.rank(task), task)

    put_back = put

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        task = self._queues.first(ready)
        if task is not None:
            self.remove(task.task_id)
        return task

    def remove(self, task_id: str) -> bool:
        task = self._waiting.pop(task_id, None)
        if task is not None:
            self._queues.remove(task.keys, self.rank(task), task)
        return task is not None

    def __len__(self) -> int:
        return len(self._waiting)
