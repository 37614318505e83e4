"""Urgent tasks first."""

from __future__ import annotations

import math
from typing import ClassVar

import pydantic

from anywire.scheduler import QueuedTask, QueueKey, Ready, Scheduler, SchedulerConfig
from anywire.scheduler_tools.arrival_queue import ArrivalQueue


class PriorityConfig(SchedulerConfig):
    priority_levels: int = pydantic.Field(
        default=3,
        ge=1,
        le=100,
        description="Bands that priorities are mapped to. 0 is in the middle band, each step of 1 is one band up or "
        "down, and what is beyond the ends is in the last band there.",
    )
    aging: float = pydantic.Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds of waiting after which a task rises by one band. 0: it never rises, and may wait for as "
        "long as higher ones come.",
    )
    kept_back: float = pydantic.Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of max_queue_size that is kept back from the lowest band; of the bands above it in equal "
        "steps less, and of the highest nothing. 0: every band may fill the queue.",
    )


Bands = dict[int, ArrivalQueue]
"""The waiting tasks with the same keys, by band; in each the oldest first, and none is empty."""


class Priority(Scheduler):
    """The highest band first, and in a band the task that came first.

    So that nobody starves a waiting task rises by one band after every ``aging`` seconds: with n bands it is in the
    highest one after at most (n - 1) x ``aging`` seconds, where only older tasks go before it. This is ageing as
    operating systems do it (Silberschatz, Galvin, Gagne: Operating System Concepts, chapter on CPU scheduling,
    "Priority Scheduling"). Nothing is moved for it: of the tasks in one band the oldest has risen the most and came
    first, so only the oldest of each band need be looked at when one is taken.

    With ``kept_back`` the queue is full for a low band while a higher one still finds room, so that a flood of low
    tasks does not make each urgent one displace a task that was let in (trunk reservation in telephone networks;
    Kelly 1991, "Loss networks").

    When everything is full, a task of a higher band takes the place of a waiting one: of the newest in the lowest band
    below it. A task that has risen counts as what it was at the last `take`.

    Taking and displacing cost a look at each band of each set of keys that waits, however many tasks do; putting costs
    O(1), removing from the middle what `ArrivalQueue` says.
    """

    name: ClassVar[str] = "priority"
    lets_pass: ClassVar[bool] = True
    Config: ClassVar[type[SchedulerConfig]] = PriorityConfig
    uses_priority: ClassVar[bool] = True

    def __init__(self, config: PriorityConfig) -> None:
        super().__init__(config)
        self._levels, self._aging_ns = config.priority_levels, int(config.aging * 1e9)
        self._kept_back = config.kept_back
        self._queues: dict[tuple[QueueKey, ...], Bands] = {}
        self._waiting: dict[str, QueuedTask] = {}
        self._now_ns = 0

    def band(self, task: QueuedTask) -> int:
        """The band of a task that has not waited: 0 is the lowest."""
        return min(max(self._levels // 2 + task.priority, 0), self._levels - 1)

    def limit(self, task: QueuedTask) -> int:
        above = self._levels - 1 - self.band(task)
        kept = self._kept_back * above / (self._levels - 1) if above else 0.0
        return max(1, math.ceil(self.config.max_queue_size * (1.0 - kept)))

    def put(self, task: QueuedTask) -> None:
        self._waiting[task.task_id] = task
        self._queue(task).add(task)

    put_back = put

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        self._now_ns = now_ns
        first: QueuedTask | None = None
        highest = (-1, 0)
        for keys, bands in self._queues.items():
            for band, queue in bands.items():
                rank = self._rank(band, queue[0].received_ns)
                if rank > highest:
                    # Asked once: the first that is ahead of all others so far decides for its keys.
                    if (first is None or first.keys != keys) and not ready(keys):
                        break
                    highest, first = rank, queue[0]
        if first is not None:
            self.remove(first.task_id)
        return first

    def remove(self, task_id: str) -> bool:
        task = self._waiting.pop(task_id, None)
        if task is None:
            return False
        bands = self._queues[task.keys]
        band = self.band(task)
        bands[band].discard(task)
        if not bands[band]:
            del bands[band]
            if not bands:
                del self._queues[task.keys]
        return True

    def displace(self, task: QueuedTask) -> str | None:
        lowest: QueuedTask | None = None
        least: tuple[int, float] = (self.band(task), -math.inf)
        for bands in self._queues.values():
            for band, queue in bands.items():
                rank = self._rank(band, queue[-1].received_ns)
                if rank < least:
                    least, lowest = rank, queue[-1]
        return lowest.task_id if lowest is not None else None

    def __len__(self) -> int:
        return len(self._waiting)

    def _queue(self, task: QueuedTask) -> ArrivalQueue:
        return self._queues.setdefault(task.keys, {}).setdefault(self.band(task), ArrivalQueue())

    def _rank(self, band: int, received_ns: int) -> tuple[int, int]:
        """The band by now of a task, and of equals the older one first: the greater, the sooner it goes."""
        waited = self._now_ns - received_ns
        if 0 < self._aging_ns <= waited:
            band = min(band + waited // self._aging_ns, self._levels - 1)
        return band, -received_ns
