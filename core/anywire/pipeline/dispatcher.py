"""Queue and choice: which waiting task is sent next, and to which agent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from anywire.pipeline.registry import Registry
from anywire.pipeline.task import Task
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, Selector

log = logging.getLogger(__name__)


class Dispatcher:
    """Sends what can be sent whenever it is told that something changed; ``send(task, agent)`` does the sending."""

    def __init__(
        self,
        scheduler: Scheduler,
        selector: Selector,
        registry: Registry,
        tasks: Mapping[str, Task],
        send: Callable[[Task, AgentView], None],
        plugins: Plugins,
    ) -> None:
        self._scheduler, self._selector, self._registry = scheduler, selector, registry
        self._tasks, self._send = tasks, send
        self._filters = plugins.implementations("anywire_filter_candidates")
        self._held: list[QueuedTask] = []
        self._dispatching = False

    @property
    def waiting(self) -> int:
        """How many tasks are queued."""
        return len(self._scheduler) + len(self._held)

    def put(self, queued: QueuedTask) -> None:
        """Queue a new task; raises `QueueFull`."""
        self._scheduler.put(queued)

    def put_back(self, queued: QueuedTask) -> None:
        self._scheduler.put_back(queued)

    def remove(self, task_id: str) -> None:
        """Forget a task that has ended; it need not be queued."""
        self._scheduler.remove(task_id)

    def changed(self) -> None:
        """An agent's state changed: also what the selector let wait is asked about again."""
        if self._held:
            held, self._held = self._held, []
            for queued in held:
                if queued.task_id in self._tasks:
                    self._scheduler.put_back(queued)
        self.dispatch()

    def dispatch(self) -> None:
        """Send every task whose key has a free agent, in the scheduler's order."""
        # A selector, hook or transport may cause a change that asks for a dispatch: the loop below sees it anyway.
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while len(self._scheduler):
                queued = self._scheduler.take(self._ready)
                if queued is None:
                    return
                self._place(self._tasks[queued.task_id])
        finally:
            self._dispatching = False

    def _ready(self, key: QueueKey) -> bool:
        return bool(self._registry.candidates(key))

    def _place(self, task: Task) -> None:
        candidates: Sequence[AgentView] = self._registry.candidates(task.queued.key)
        if task.tried:
            candidates = [agent for agent in candidates if agent.agent_id not in task.tried] or candidates
        if task.chunks:
            candidates = [agent for agent in candidates if "resume" in agent.info.capabilities]
        for narrow in self._filters:
            try:
                narrowed = narrow(task=task.queued, candidates=candidates)
            except Exception:
                log.exception("a hook anywire_filter_candidates failed")
                continue
            candidates = candidates if narrowed is None else narrowed
        agent = self._selector.select(task.queued, candidates) if candidates else None
        if agent is None:
            self._held.append(task.queued)
            return
        self._send(task, agent)
