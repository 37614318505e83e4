"""The contract of a scheduler: in which order waiting tasks are sent.

A scheduler is a queue with sub-queues by key. It is pure: no I/O, no clock, no tasks of its own; the pipeline
calls it from the event loop. A key says what a task needs of an agent (its model and kind), and ``take`` is told which
keys have a free agent now, so a busy model never blocks the others and is never scanned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import msgspec
import pydantic

from anywire.errors import QueueFull


class QueueKey(NamedTuple):
    """What a task needs of an agent."""

    model: str
    kind: str


class QueuedTask(msgspec.Struct, frozen=True, eq=False):
    """What a scheduler may know of a waiting task. ``received_ns`` is monotonic; ``deadline_ns`` 0 means none.
    ``prompt_chars`` is the size of the request body. ``attempt`` above 1 means that an earlier one was lost."""

    task_id: str
    key: QueueKey
    priority: int = 0
    received_ns: int = 0
    deadline_ns: int = 0
    prompt_chars: int = 0
    attempt: int = 1


class SchedulerConfig(pydantic.BaseModel):
    """What every scheduler has; a plugin's ``Config`` extends it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    max_queue_size: int = pydantic.Field(default=1024, ge=1, description="tasks that may wait before 429")


class Scheduler(ABC):
    name: ClassVar[str]
    Config: ClassVar[type[SchedulerConfig]] = SchedulerConfig

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config

    @abstractmethod
    def put(self, task: QueuedTask) -> None:
        """Queue a new task. Raises `QueueFull` (see `full`) at ``max_queue_size``."""

    @abstractmethod
    def put_back(self, task: QueuedTask) -> None:
        """Queue a task taken before (its attempt was lost, its agent refused, the selector let it wait). Always
        accepted; its place is where it was: before everything of its rank that was received later."""

    @abstractmethod
    def take(self, ready: Callable[[QueueKey], bool]) -> QueuedTask | None:
        """Remove and return the next task, in this scheduler's order, among those whose key is ready.
        ``ready`` is asked at most once per key and call."""

    @abstractmethod
    def remove(self, task_id: str) -> bool:
        """Forget a waiting task (cancelled, out of time); False when it is not waiting."""

    @abstractmethod
    def __len__(self) -> int: ...

    def full(self) -> QueueFull:
        """The error for ``put`` to raise."""
        return QueueFull(f"the queue holds {self.config.max_queue_size} tasks already (scheduler.max_queue_size)")
