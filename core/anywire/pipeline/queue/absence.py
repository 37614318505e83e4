"""Tasks that nobody serves: they wait for an agent, for a bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil

from anywire import errors
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.fleet.serving import Served
from anywire.pipeline.queue.admission import Admission
from anywire.pipeline.queue.broken_streams import nobody_resumes
from anywire.pipeline.tasks.task import Task
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import QueueKey

MAX_NAMED = 3
"""Agents that an error names."""
EXPECTED_LOOK = 1.0
"""Seconds between two looks at least at whether somebody still sees to the model that a task waits for."""


class Absence:
    """Calls ``fail(task, error)`` when nobody could serve a task for ``config.agent_wait`` seconds on end.

    The time counts from the newest absence: it ends when an agent serves the task again. For a stream that waits to be
    resumed agents with other weights come and go without a word: it is looked at as often, and fails when
    nobody could resume it at two looks on end, or when nobody could at the first.
    """

    def __init__(
        self,
        clock: Clock,
        config: PipelineConfig,
        registry: Registry,
        admission: Admission,
        fail: Callable[[Task, AnywireError], None],
    ) -> None:
        self._clock, self._config, self._registry, self._admission, self._fail = (
            clock,
            config,
            registry,
            admission,
            fail,
        )
        self._tasks: dict[Served, dict[str, Task]] = {}
        self._absent: set[str] = set()
        """Of those the tasks that nobody served at the last look."""
        self.fall_back: Callable[[Task], bool] = lambda task: False
        """Lets a task wait for another model that somebody serves, if it may: `anywire.pipeline.attempts.fallbacks`."""
        self.why: Callable[[QueueKey], tuple[str, float]] = lambda key: ("", 0.0)
        """Says why agents that are there do not serve a key, and in how many seconds that may change."""

    def check(self, task: Task) -> None:
        """Begin to count if nobody serves this task now, unless it falls back on another model. Does nothing when its
        time runs already."""
        if task.agent_timer is not None:
            return
        is_served = self._is_served(task)
        if not is_served and task.chain and self.fall_back(task):
            return
        if task.chunks or not is_served:
            self._count(task, is_served)

    def end(self, task: Task) -> None:
        """It is served, or it waits no more; it need not have been waiting."""
        if task.agent_timer is None:
            return
        task.agent_timer.cancel()
        task.agent_timer = None
        self._absent.discard(task.task_id)
        for served in _all_served(task):
            waiting = self._tasks[served]
            del waiting[task.task_id]
            if not waiting:
                del self._tasks[served]

    def served(self, served: Iterable[Served]) -> None:
        """Somebody serves these models in these kinds now."""
        for each in served:
            for task in list(self._tasks.get(each, {}).values()):
                if not self._is_served(task):
                    if task.chain:
                        self.fall_back(task)
                elif task.chunks:
                    self._absent.discard(task.task_id)
                else:
                    self.end(task)

    def _count(self, task: Task, is_served: bool, wait: float | None = None) -> None:
        task.agent_timer = self._clock.call_later(self._config.agent_wait if wait is None else wait, self._expire, task)
        if not is_served:
            self._absent.add(task.task_id)
        for served in _all_served(task):
            self._tasks.setdefault(served, {})[task.task_id] = task

    def _expire(self, task: Task) -> None:
        was_served = task.task_id not in self._absent
        self.end(task)
        is_served = self._is_served(task)
        if task.chunks and (is_served or was_served):
            self._count(task, is_served)
            return
        key = task.queued.key
        reasons = map(self.why, task.queued.keys)
        why, pause = next((reason for reason in reasons if reason[0]), (self._crashed(key), 0.0))
        broken = nobody_resumes(task, self._config.agent_wait, why)
        if broken is not None:
            self._fail(task, broken)
            return
        refused = self._admission.unknown(key, task.submission.caller)
        if refused is None and any(self._registry.serving.is_expected(each.model) for each in task.queued.keys):
            self._count(task, is_served, max(self._config.agent_wait, EXPECTED_LOOK))
            return
        others = ", ".join([repr(each.model) for each in task.chain])
        models = f"{key.model!r}, nor for {others} in its place," if others else repr(key.model)
        message = f"no agent for model {models} within {self._config.agent_wait:g} s" + (f": {why}" if why else "")
        nobody = errors.NoAgent(message, retry_after=float(ceil(pause)))
        self._fail(task, refused or nobody)

    def _crashed(self, key: QueueKey) -> str:
        ends = self._registry.serving.crashed(key[:2])
        more = f"; and at {len(ends) - MAX_NAMED} more" if len(ends) > MAX_NAMED else ""
        advice = f"; start it with `anywire models start {key.model}`" if ends else ""
        return "; ".join(ends[:MAX_NAMED]) + more + advice

    def _is_served(self, task: Task) -> bool:
        keys = task.queued.keys
        if task.chunks:
            return any(task.resumes_with(*each) for key in keys for each in self._registry.serving.offered(key[:2]))
        return any(map(self._registry.serves, keys))


def _all_served(task: Task) -> set[Served]:
    """What an agent would have to serve for the task to be sent, as one of its models or of their fallbacks."""
    return {key[:2] for key in (*task.queued.keys, *task.chain)}
