"""Tasks that wait for their turn: how many of each tenant and model, and how far predicted waits were off."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from typing import Any

from anywire.clock import Clock
from anywire.pipeline.tasks.model_queue import ModelQueue, Wait
from anywire.pipeline.tasks.task import Task

MAX_MODELS = 1024
"""Models whose queues are measured; the one that nobody has asked for longest is forgotten."""


class Waiting:
    """``by_priority``: the scheduler goes by priority. ``rng`` spreads those that come back."""

    def __init__(self, clock: Clock, by_priority: bool, rng: random.Random | None = None) -> None:
        self._now, self._by_priority = clock.now, by_priority
        self._rng = rng or random.Random()
        self._models: OrderedDict[str, ModelQueue] = OrderedDict()
        self.tenants: Counter[str] = Counter()
        """How many tasks of each tenant wait; empty while none does."""
        self.refused: Counter[str] = Counter()
        """How many tasks were refused, by code."""
        self._predictions, self._error, self._bias = 0, 0.0, 0.0

    def begins(self, task: Task) -> None:
        """A new task was not sent at once, and waits."""
        self.tenants[task.submission.caller.tenant] += 1
        now = self._now()
        if task.place == "held":
            task.wait = Wait(None, now, None)
            return
        task.wait = Wait(self._queue(task), now, None)
        self._enter(task, task.wait, now)

    def released(self, task: Task) -> None:
        """A task that was held for a service waits for its turn now."""
        if task.wait is not None and task.wait.queue is None:
            task.wait.queue = self._queue(task)
            self._enter(task, task.wait, self._now())

    def ends(self, task: Task, sent: bool) -> None:
        """A task does not wait any more: it was ``sent``, or has ended. Call it for one with a ``wait``."""
        wait, task.wait = task.wait, None
        if wait is None:
            return
        tenant = task.submission.caller.tenant
        self.tenants[tenant] -= 1
        if not self.tenants[tenant]:
            del self.tenants[tenant]
        if wait.queue is None:
            return
        now = self._now()
        wait.queue.left(now, task.queued.priority, sent)
        if sent and wait.predicted is not None:
            error = now - wait.since - wait.predicted
            self._predictions += 1
            self._error += abs(error)
            self._bias += error

    def predicted(self, model: str, priority: int) -> float | None:
        """Seconds that a new task would wait; None when that is not known."""
        queue = self._models.get(model)
        if queue is None or not queue.waiting:
            return None
        return queue.wait_of_next(queue.ahead(priority, self._by_priority))

    def answered(self, model: str, seconds: float, tokens: int) -> None:
        """A task of ``model`` was answered with so many tokens, so long after it was sent."""
        queue = self._models.get(model)
        if queue is not None:
            queue.answered(self._now(), seconds, tokens)

    def given_up(self, model: str, seconds: float) -> None:
        """A task of ``model`` was out of time so long after it was sent."""
        queue = self._models.get(model)
        if queue is not None:
            queue.given_up(self._now(), seconds)

    def is_too_late(self, model: str, left: float, max_tokens: int) -> bool:
        """Whether a task that is sent now would not be answered in the seconds that are left; False where that is not
        known."""
        queue = self._models.get(model)
        return queue is not None and queue.is_too_late(self._now(), left, max_tokens)

    def answer_time(self, model: str, max_tokens: int) -> float:
        """Seconds that the answer of a new task would take once it is sent; 0 where that is not known."""
        queue = self._models.get(model)
        return queue.answer_time(max_tokens) if queue is not None else 0.0

    def come_back(self, model: str, slots: int) -> float:
        """Seconds after which a client that is refused is to come back."""
        queue = self._models.get(model) or ModelQueue()
        return queue.come_back(self._now(), slots, self._rng)

    def stats(self) -> dict[str, Any]:
        """Plain JSON types. ``wait_error_s`` and ``wait_bias_s`` are sums over ``wait_predictions``: of how far each
        was off, and of the actual wait less the predicted one."""
        return {
            "refused": dict(self.refused),
            "wait_predictions": self._predictions,
            "wait_error_s": self._error,
            "wait_bias_s": self._bias,
        }

    def _enter(self, task: Task, wait: Wait, now: float) -> None:
        queue, priority = wait.queue, task.queued.priority
        assert queue is not None
        wait.since = now
        wait.predicted = queue.wait_of_next(queue.ahead(priority, self._by_priority)) if queue.waiting else None
        queue.entered(now, priority)

    def _queue(self, task: Task) -> ModelQueue:
        model, models = task.queued.keys[0].model, self._models
        queue = models.get(model)
        if queue is None:
            queue = models[model] = ModelQueue()
            if len(models) > MAX_MODELS:
                models.popitem(last=False)
        else:
            models.move_to_end(model)
        return queue
