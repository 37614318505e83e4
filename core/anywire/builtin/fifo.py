"""First in, first out."""

from __future__ import annotations

from typing import ClassVar

from anywire.scheduler import QueuedTask, QueueKey, Ready, Scheduler, SchedulerConfig
from anywire.scheduler_tools.arrival_queue import ArrivalQueue


class Fifo(Scheduler):
    """The task that came first goes first, among those for which an agent is free.

    Putting costs O(1), removing from the middle what `ArrivalQueue` says; taking looks at each set of keys.
    """

    name: ClassVar[str] = "fifo"
    lets_pass: ClassVar[bool] = True

    def __init__(self, config: SchedulerConfig) -> None:
        super().__init__(config)
        self._queues: dict[tuple[QueueKey, ...], ArrivalQueue] = {}
        self._waiting: dict[str, QueuedTask] = {}

    def put(self, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        queue = self._queues.get(task.keys)
        if queue is None:
            self._queues[task.keys] = ArrivalQueue((task,))
        else:
            queue.add(task)

    put_back = put

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        first: ArrivalQueue | None = None
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
        queue.discard(task)
        if not queue:
            del self._queues[task.keys]
        return True

    def __len__(self) -> int:
        return len(self._waiting)
