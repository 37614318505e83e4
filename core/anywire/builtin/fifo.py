"""First in, first out."""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import ClassVar

from anywire.scheduler import QueuedTask, QueueKey, Ready, Scheduler, SchedulerConfig


def _arrival(task: QueuedTask) -> int:
    return task.received_ns


class Fifo(Scheduler):
    """The task that came first goes first, among those for which an agent is free."""

    name: ClassVar[str] = "fifo"

    def __init__(self, config: SchedulerConfig) -> None:
        super().__init__(config)
        self._queues: dict[tuple[QueueKey, ...], deque[QueuedTask]] = {}
        self._waiting: dict[str, QueuedTask] = {}

    def put(self, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        self._queues.setdefault(task.keys, deque()).append(task)

    def put_back(self, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        queue = self._queues.setdefault(task.keys, deque())
        if queue and queue[0].received_ns <= task.received_ns:
            insort(queue, task, key=_arrival)
        else:
            queue.appendleft(task)

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        first: deque[QueuedTask] | None = None
        for keys, queue in self._queues.items():
            if (first is None or queue[0].received_ns < first[0].received_ns) and ready(keys):
                first = queue
        if first is None:
            return None
        task = first.popleft()
        if not first:
            del self._queues[task.keys]
        del self._waiting[task.task_id]
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
