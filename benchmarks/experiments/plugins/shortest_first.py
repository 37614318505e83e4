"""A scheduler to be measured beside `fifo`: of the waiting tasks the one with the shortest request goes first."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from typing import ClassVar

from anywire.hookspecs import hookimpl
from anywire.scheduler import QueuedTask, QueueKey, Ready, Scheduler, SchedulerConfig


def _rank(task: QueuedTask) -> tuple[int, int]:
    return task.prompt_chars, task.received_ns


class ShortestFirst(Scheduler):
    """Equally short ones in the order they came. A long one may wait for as long as shorter ones come."""

    name: ClassVar[str] = "shortest_first"

    def __init__(self, config: SchedulerConfig) -> None:
        super().__init__(config)
        self._queues: dict[tuple[QueueKey, ...], list[QueuedTask]] = {}

    def put(self, task: QueuedTask) -> None:
        insort(self._queues.setdefault(task.keys, []), task, key=_rank)

    put_back = put

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        queues = [queue for keys, queue in self._queues.items() if queue and ready(keys)]
        return min(queues, key=lambda queue: _rank(queue[0])).pop(0) if queues else None

    def remove(self, task_id: str) -> bool:
        for queue in self._queues.values():
            for place, task in enumerate(queue):
                if task.task_id == task_id:
                    del queue[place]
                    return True
        return False

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    return {ShortestFirst.name: ShortestFirst} if kind == "schedulers" else None
