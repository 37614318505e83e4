"""A scheduler that sends first what must be answered first."""

from __future__ import annotations

from bisect import insort
from typing import Any, ClassVar

import pydantic

from anywire.scheduler import QueuedTask, QueueKey, Ready, Scheduler, SchedulerConfig


class DeadlineConfig(SchedulerConfig):
    patience: float = pydantic.Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which a task that names no deadline is due.",
    )


class DeadlineFirst(Scheduler):
    """Earliest deadline first: of the waiting tasks the one that is due first is sent first."""

    name: ClassVar[str] = "deadline_first"
    Config = DeadlineConfig
    config: DeadlineConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._queues: dict[tuple[QueueKey, ...], list[QueuedTask]] = {}
        self._waiting: dict[str, QueuedTask] = {}

    def _due(self, task: QueuedTask) -> tuple[int, int]:
        due = task.deadline_ns or task.received_ns + int(self.config.patience * 1e9)
        return due, task.received_ns

    def put(self, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        insort(self._queues.setdefault(task.keys, []), task, key=self._due)

    put_back = put

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        heads = [queue[0] for keys, queue in self._queues.items() if ready(keys)]
        if not heads:
            return None
        task = min(heads, key=self._due)
        self.remove(task.task_id)
        return task

    def remove(self, task_id: str) -> bool:
        task = self._waiting.pop(task_id, None)
        if task is None:
            return False
        queue = self._queues[task.keys]
        queue.remove(task)
        if not queue:
            del self._queues[task.keys]
        return True

    def __len__(self) -> int:
        return len(self._waiting)

    def displace(self, task: QueuedTask) -> str | None:
        last = max((queue[-1] for queue in self._queues.values()), key=self._due, default=None)
        return last.task_id if last is not None and self._due(task) < self._due(last) else None
