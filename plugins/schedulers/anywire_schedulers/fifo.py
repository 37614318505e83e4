"""First in, first out."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from anywire.scheduler import QueuedTask, QueueKey, Scheduler, SchedulerConfig


def _arrival(task: QueuedTask) -> int:
    return task.received_ns


class Fifo(Scheduler):
    """The task that came first goes first, among those whose model has a free agent."""

    name: ClassVar[str] = "fifo"

    def __init__(self, config: SchedulerConfig) -> None:
        super().__init__(config)
        self._queues: dict[QueueKey, deque[QueuedTask]] = {}
        self._waiting: dict[str, QueuedTask] = {}

    def put(self, task: QueuedTask) -> None:
        if len(self._waiting) >= self.config.max_queue_size:
            raise self.full()
        self._waiting[task.task_id] = task
        self._queues.setdefault(task.key, deque()).append(task)

    def put_back(self, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        queue = self._queues.setdefault(task.key, deque())
        if queue and queue[0].received_ns <= task.received_ns:
            insort(queue, task, key=_arrival)
        else:
            queue.appendleft(task)

    def take(self, ready: Callable[[QueueKey], bool]) -> QueuedTask | None:
        first: deque[QueuedTask] | None = None
        for key, queue in self._queues.items():
            if (first is None or queue[0].received_ns < first[0].received_ns) and ready(key):
                first = queue
        if first is None:
            return None
        task = first.popleft()
        if not first:
            del self._queues[task.key]
        del self._waiting[task.task_id]
        return task

    def remove(self, task_id: str) -> bool:
        task = self._waiting.pop(task_id, None)
        if task is None:
            return False
        queue = self._queues[task.key]
        queue.remove(task)
        if not queue:
            del self._queues[task.key]
        return True

    def __len__(self) -> int:
        return len(self._waiting)
