"""Tasks that nobody serves: they wait for an agent, for a bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil

from anywire import errors
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.pipeline.admission import Admission
from anywire.pipeline.registry import Registry
from anywire.pipeline.serving import Served
from anywire.pipeline.task import Task
from anywire.scheduler import QueueKey


class Absence:
    """Calls ``fail(task, error)`` when nobody could serve a task for ``wait`` seconds on end.

    The time counts from the newest absence: it ends when an agent serves the task again.
    """

    def __init__(
        self,
        clock: Clock,
        wait: float,
        registry: Registry,
        admission: Admission,
        fail: Callable[[Task, AnywireError], None],
    ) -> None:
        self._clock, self._wait, self._registry, self._admission, self._fail = clock, wait, registry, admission, fail
        self._tasks: dict[Served, dict[str, Task]] = {}
        self.why: Callable[[QueueKey], tuple[str, float]] = lambda key: ("", 0.0)
        """Says why agents that are there do not serve a key, and in how many seconds that may change."""

    def check(self, task: Task) -> None:
        """Begin to count if nobody serves this task now. Does nothing when its time runs already."""
        if task.agent_timer is None and not self._is_served(task):
            task.agent_timer = self._clock.call_later(self._wait, self._expire, task)
            for key in task.queued.keys:
                self._tasks.setdefault(key[:2], {})[task.task_id] = task

    def end(self, task: Task) -> None:
        """It is served, or it waits no more; it need not have been waiting."""
        if task.agent_timer is None:
            return
        task.agent_timer.cancel()
        task.agent_timer = None
        for served in {key[:2] for key in task.queued.keys}:
            waiting = self._tasks[served]
            del waiting[task.task_id]
            if not waiting:
                del self._tasks[served]

    def served(self, served: Iterable[Served]) -> None:
        """Somebody serves these models in these kinds now."""
        for each in served:
            for task in list(self._tasks.get(each, {}).values()):
                if self._is_served(task):
                    self.end(task)

    def _expire(self, task: Task) -> None:
        self.end(task)
        key = task.queued.key
        reasons = map(self.why, task.queued.keys)
        why, pause = next((reason for reason in reasons if reason[0]), ("", 0.0))
        message = f"no agent for model {key.model!r} within {self._wait:g} s" + (f": {why}" if why else "")
        nobody = errors.NoAgent(message, retry_after=float(ceil(pause)))
        self._fail(task, self._admission.unknown(key, task.submission.caller) or nobody)

    def _is_served(self, task: Task) -> bool:
        registry = self._registry
        if task.chunks:
            there = (agent for agent in registry.agents() if not registry.is_barred(agent.agent_id))
            return any(map(task.resumes_on, there))
        return any(map(registry.serves, task.queued.keys))
