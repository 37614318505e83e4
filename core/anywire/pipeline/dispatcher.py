"""Queue and choice: which waiting task is sent next, and to which agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from anywire import errors
from anywire.clock import Clock, Timer
from anywire.errors import AnywireError
from anywire.pipeline.boundary import Boundary, label
from anywire.pipeline.registry import Registry
from anywire.pipeline.task import Task
from anywire.scheduler import QueuedTask, QueueKey, Scheduler, SchedulerConfig
from anywire.selector import AgentView, Selector

HELD_RETRY = 1.0
"""Seconds after which held tasks are offered again when nothing else has offered them."""


class DispatcherSink(Protocol):
    def send(self, task: Task, agent: AgentView) -> None:
        """Send a task to the agent that was chosen for it."""
        ...

    def fail_task(self, task: Task, error: AnywireError) -> None:
        """End a task: the scheduler failed on it."""
        ...


class Dispatcher:
    """Sends what can be sent whenever it is told that something changed.

    It keeps its own book of what is queued and held, so that a scheduler which loses, doubles or invents tasks is
    noticed. ``filters`` is the hook ``anywire_filter_candidates`` or None.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        selector: Selector,
        registry: Registry,
        sink: DispatcherSink,
        boundary: Boundary,
        filters: Callable[..., Any] | None,
        clock: Clock,
    ) -> None:
        self._scheduler, self._selector = scheduler, selector
        self._sink, self._boundary, self._filters, self._clock = sink, boundary, filters, clock
        self._candidates, self._agent = registry.serving.candidates, registry.agent
        self._queued: dict[str, Task] = {}
        self._held: dict[str, Task] = {}
        self._limit: int = getattr(
            getattr(scheduler, "config", None), "max_queue_size", SchedulerConfig().max_queue_size
        )
        self._scheduler_name = label("scheduler", scheduler)
        self._selector_name = label("selector", selector)
        self._offering: Timer | None = None
        self._dispatching = self._putting_back = False
        self._choosing: Task | None = None
        """The task for which an agent is being chosen: plugins run, and it is in neither book."""
        self._gate_closed = False

    @property
    def waiting(self) -> int:
        """How many tasks are queued or held."""
        return len(self._queued) + len(self._held)

    def waiting_tasks(self) -> list[Task]:
        choosing = [self._choosing] if self._choosing is not None and self._choosing.place != "ended" else []
        return [*choosing, *self._queued.values(), *self._held.values()]

    def put(self, task: Task) -> None:
        """Queue a new task. Raises `QueueFull` (held tasks count too), or `PluginFailed` when the scheduler fails."""
        if len(self._queued) + len(self._held) >= self._limit:
            raise errors.QueueFull(
                f"{self.waiting} tasks wait already, the limit is {self._limit} (scheduler.max_queue_size)"
            )
        try:
            self._scheduler.put(task.queued)
        except errors.QueueFull:
            raise
        except Exception as error:
            raise self._scheduler_failed("put", error, task.task_id) from error
        self._queued[task.task_id] = task
        task.place = "queued"

    def put_back(self, task: Task) -> None:
        """Queue a task that was queued before. It ends with `PluginFailed` when the scheduler fails."""
        self._held.pop(task.task_id, None)
        try:
            self._scheduler.put_back(task.queued)
        except Exception as error:
            self._sink.fail_task(task, self._scheduler_failed("put_back", error, task.task_id))
            return
        self._queued[task.task_id] = task
        task.place, task.why = "queued", ""

    def hold(self, task: Task, why: str) -> None:
        """Let a task wait for something else than its turn, until `put_back`, or `offer_held` unless ``why`` is
        ``retry``."""
        self._held[task.task_id] = task
        task.place, task.why = "held", why
        if self._offering is None:
            self._offering = self._clock.call_later(HELD_RETRY, self._offer_again)

    def remove(self, task: Task) -> None:
        """Forget a task that has ended; it need not be waiting."""
        task_id = task.task_id
        self._held.pop(task_id, None)
        if self._queued.pop(task_id, None) is not None:
            self._boundary.call(
                self._scheduler_name, "remove", self._scheduler.remove, task_id, otherwise=False, task_id=task_id
            )

    def offer_held(self) -> None:
        """Offer held tasks to the scheduler again, and dispatch. Call it after an agent's state has changed."""
        # A scheduler that fails ends a task, which asks for this again: the loop below goes on, without recursion.
        if self._putting_back:
            return
        if self._held:
            self._putting_back = True
            try:
                for task in [task for task in self._held.values() if task.why != "retry"]:
                    if task.place == "held":
                        self.put_back(task)
            finally:
                self._putting_back = False
        self.dispatch()

    def dispatch(self) -> None:
        """Send every task whose key has a free agent, in the scheduler's order."""
        # A selector, hook or transport may cause a change that asks for a dispatch: the loop below sees it anyway.
        if self._dispatching or self._gate_closed:
            return
        self._dispatching = True
        try:
            while self._queued:
                taken = self._take()
                if taken is None:
                    return
                task, free = taken
                self._choosing = task
                agent = self._choose(task, free)
                self._choosing = None
                # The plugins that were asked may have cancelled it, or closed the gate.
                if task.place == "ended":
                    continue
                if agent is None or self._agent(agent.agent_id) is not agent:
                    self.hold(task, "no agent was chosen")
                else:
                    self._sink.send(task, agent)
        finally:
            self._dispatching = False
            self._choosing = None

    def hedge(self, task: Task) -> bool:
        """Send a running task to a second agent, if one can take it now."""
        free = self._candidates(task.queued.key)
        if self._gate_closed or not any(agent.agent_id not in task.tried for agent in free):
            return False
        agent = self._choose(task, free)
        if agent is None or task.place == "ended" or self._agent(agent.agent_id) is not agent:
            return False
        self._sink.send(task, agent)
        return True

    def close_gate(self) -> None:
        """Send nothing from now on."""
        self._gate_closed = True
        if self._offering is not None:
            self._offering.cancel()
            self._offering = None

    def _offer_again(self) -> None:
        self._offering = None
        self.offer_held()

    def _ready(self, key: QueueKey) -> bool:
        return bool(self._candidates(key))

    def _take(self) -> tuple[Task, Sequence[AgentView]] | None:
        """The next task, no longer queued, and who could take it; None when there is none to be sent now. Tasks at
        which the scheduler fails are ended on the way, one for each failure, so that this ends."""
        while self._queued:
            try:
                queued = self._scheduler.take(self._ready)
                if queued is None:
                    return None
                task = self._queued.pop(queued.task_id, None)
                fault: Exception | str = "returned a task that is not queued"
                if task is not None:
                    free = self._candidates(task.queued.key)
                    if free:
                        return task, free
                    fault = "returned a task that no agent can take now"
            except Exception as error:
                task, fault = None, error
            if task is None:
                task = next((each for each in self._queued.values() if self._ready(each.queued.key)), None)
            failure = self._scheduler_failed("take", fault, task.task_id if task is not None else "")
            if task is None:
                return None
            self._sink.fail_task(task, failure)
        return None

    def _choose(self, task: Task, free: Sequence[AgentView]) -> AgentView | None:
        """The agent of those ``free`` for a task; None lets it wait."""
        candidates: Sequence[AgentView] = tuple(free)
        if task.tried:
            candidates = tuple(agent for agent in free if agent.agent_id not in task.tried) or candidates
        if task.chunks:
            candidates = tuple(agent for agent in candidates if "resume" in agent.info.capabilities)
        if self._filters is not None:
            candidates = self._filtered(task.queued, candidates)
        if not candidates:
            return None
        try:
            chosen = self._selector.select(task.queued, candidates)
        except Exception as error:
            self._boundary.failed(self._selector_name, "select", error, task.task_id)
            return least_loaded(candidates)
        # Views are equal to none but themselves, unlike what a selector may have made up.
        if chosen is None or (type(chosen) is AgentView and chosen in candidates):
            return chosen
        what = f"returned {type(chosen).__name__} {str(chosen)[:80]!r}, which is none of the candidates"
        self._boundary.failed(self._selector_name, "select", what, task.task_id)
        return least_loaded(candidates)

    def _filtered(self, queued: QueuedTask, candidates: Sequence[AgentView]) -> Sequence[AgentView]:
        """The candidates that every filter hook leaves."""
        assert self._filters is not None
        results = self._filters(task=queued, candidates=candidates)
        # Only a wrapper can make something else of pluggy's list.
        for narrowed in results if isinstance(results, list) else [results] if results is not None else []:
            try:
                kept = {id(agent) for agent in narrowed}
            except Exception as error:
                self._boundary.failed("hook anywire_filter_candidates", "result", error, queued.task_id)
                continue
            candidates = tuple(agent for agent in candidates if id(agent) in kept)
        return candidates

    def _scheduler_failed(self, call: str, fault: Exception | str, task_id: str) -> errors.PluginFailed:
        self._boundary.failed(self._scheduler_name, call, fault, task_id)
        what = fault if isinstance(fault, str) else f"raised {type(fault).__name__}: {fault}"
        return errors.PluginFailed(f"the {self._scheduler_name} failed in {call}: it {what}", task_id=task_id)


def least_loaded(candidates: Sequence[AgentView]) -> AgentView:
    """The built-in choice: the smallest share of slots in use, of equals the one that joined first."""
    return min(candidates, key=lambda agent: agent.in_flight / max(1, agent.status.slots))
