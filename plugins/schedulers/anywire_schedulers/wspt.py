"""Short and important tasks first."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import pydantic

from anywire.scheduler import Outcome, QueuedTask, Ready, Scheduler, SchedulerConfig
from anywire.scheduler_tools.charges import ExpectedTokens
from anywire.scheduler_tools.ranked_queues import RankedQueues, asked_once

MAX_PRIORITY = 10
"""Priorities beyond it, up or down, weigh as much as this one."""


class WsptConfig(SchedulerConfig):
    expected_tokens: float = pydantic.Field(
        default=256.0, ge=1, le=1e6, description="Tokens of an answer of a tenant of which none has been seen yet."
    )
    prompt_cost: float = pydantic.Field(
        default=0.1, ge=0, le=10, description="Time that a token of a prompt takes, in times of a token of an answer."
    )
    priority_factor: float = pydantic.Field(
        default=2.0, ge=1, le=10, description="How many times as much a task weighs for each step of priority."
    )
    longest_wait: float = pydantic.Field(
        default=60.0,
        ge=0,
        le=1e9,
        description="Seconds of waiting after which a task is overdue: every second task sent is the oldest overdue "
        "one. 0: long tasks may wait for as long as shorter ones come.",
    )


class _Waiting(NamedTuple):
    task: QueuedTask
    rank: tuple[float, int]


class Wspt(Scheduler):
    """The smallest ratio of expected time to weight first, of equals the task that came first.

    Method: Smith's rule, weighted shortest processing time (Smith 1956, "Various optimizers for single-stage
    production"), with expected times in place of known ones (Rothkopf 1966, "Scheduling with random service times"). It
    makes the weighted mean wait least where everything waits already and expectations are right.

    The expected time is counted in tokens of an answer: `ExpectedTokens.answer`, plus ``prompt_cost`` for each token of
    the prompt, as expected when the task is put. The weight is ``priority_factor`` to the power of the priority.

    Nobody starves: once a task has waited for ``longest_wait``, it is sent after at most two tasks for each older one
    that waits, and two more.

    Putting, taking and removing cost O(log n) comparisons for n waiting tasks; taking looks at each set of keys too.
    """

    name: ClassVar[str] = "wspt"
    Config: ClassVar[type[SchedulerConfig]] = WsptConfig
    uses_priority: ClassVar[bool] = True

    def __init__(self, config: WsptConfig) -> None:
        super().__init__(config)
        self._settings, self._longest_ns = config, int(config.longest_wait * 1e9)
        self._expected = ExpectedTokens(config.expected_tokens)
        self._by_rank: RankedQueues[QueuedTask] = RankedQueues()
        self._by_arrival: RankedQueues[QueuedTask] = RankedQueues()
        self._waiting: dict[str, _Waiting] = {}
        self._was_overdue = False
        """Whether the task taken last was one that had waited too long."""

    def rank(self, task: QueuedTask) -> tuple[float, int]:
        """Expected time by weight, and when it came."""
        time = self._expected.answer(task) + self._settings.prompt_cost * self._expected.prompt(task)
        priority = min(max(task.priority, -MAX_PRIORITY), MAX_PRIORITY)
        return time / self._settings.priority_factor**priority, task.received_ns

    def put(self, task: QueuedTask) -> None:
        rank = self.rank(task)
        self._waiting[task.task_id] = _Waiting(task, rank)
        self._by_rank.add(task.keys, rank, task)
        self._by_arrival.add(task.keys, (task.received_ns,), task)

    put_back = put

    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        ready = asked_once(ready)
        task: QueuedTask | None = None
        if self._longest_ns and not self._was_overdue:
            task = self._by_arrival.first(ready, below=(now_ns - self._longest_ns + 1,))
        self._was_overdue = task is not None
        if task is None:
            task = self._by_rank.first(ready)
        if task is not None:
            self.remove(task.task_id)
        return task

    def remove(self, task_id: str) -> bool:
        waiting = self._waiting.pop(task_id, None)
        if waiting is None:
            return False
        task, rank = waiting
        self._by_rank.remove(task.keys, rank, task)
        self._by_arrival.remove(task.keys, (task.received_ns,), task)
        return True

    def observed(self, outcome: Outcome) -> None:
        self._expected.learn(outcome)

    def __len__(self) -> int:
        return len(self._waiting)
