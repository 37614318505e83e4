"""Queue and choice: which waiting task is sent next, and to which agent."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from anywire import errors
from anywire.boundary import Boundary, label
from anywire.clock import Clock, Timer
from anywire.errors import AnywireError
from anywire.event_bus import EventBus
from anywire.pipeline.fleet.groups import NOBODY, has_others
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.health.health import Health
from anywire.pipeline.queue.choosing import Chooser
from anywire.pipeline.queue.queue_room import QueueRoom
from anywire.pipeline.tasks.task import Task
from anywire.scheduler import QueuedTask, QueueKey, Scheduler
from anywire.selector import AgentView, CandidateList, Candidates, Selector

NOT_CHOSEN = "no agent was chosen"
HELD_RETRY = 1.0
"""Seconds after which held tasks are offered again when nothing else has offered them."""


class DispatcherSink(Protocol):
    def send(self, task: Task, agent: AgentView, model: str, candidates: Candidates) -> None:
        """Send a task to the agent that was chosen for it, one of ``candidates``; ``model`` is the task's model that
        they serve."""
        ...

    def task_held(self, task: Task, why: str) -> None:
        """No agent was chosen: the task waits."""
        ...

    def fail_task(self, task: Task, error: AnywireError) -> None:
        """End a task: the scheduler failed on it."""
        ...


class Dispatcher:
    """Sends what can be sent whenever it is told that something changed.

    It keeps its own account of what is queued and held, so that a scheduler which loses, doubles or invents tasks is
    noticed. ``filters`` is the hook ``anywire_filter_candidates`` or None. ``events`` are held while it dispatches.
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
        events: EventBus,
        room: QueueRoom,
        health: Health,
    ) -> None:
        self._room = room
        self._events = events
        self._scheduler, self._sink, self._boundary, self._clock = scheduler, sink, boundary, clock
        self._chooser = Chooser(selector, boundary, filters, clock.now_ns, registry, health)
        self._candidates, self._agent = registry.serving.candidates, registry.agent
        self._queued: dict[str, Task] = {}
        self._held: dict[str, Task] = {}
        self._not_chosen: dict[str, Task] = {}  # those of the held ones that `NOT_CHOSEN` holds
        self._keeps_room = getattr(type(scheduler), "limit", Scheduler.limit) is not Scheduler.limit
        self._lets_pass = vars(type(scheduler)).get("lets_pass") is True
        self._scheduler_name = label("scheduler", scheduler)
        self._offering: Timer | None = None
        self._dispatching = self._putting_back = False
        self._choosing: Task | None = None
        """The task for which an agent is being chosen: plugins run, and it is in neither book."""
        self.gate_closed = False
        """Whether nothing is sent any more."""

    @property
    def waiting(self) -> int:
        """How many tasks are queued or held."""
        return len(self._queued) + len(self._held)

    def waiting_tasks(self) -> list[Task]:
        choosing = [self._choosing] if self._choosing is not None and self._choosing.place != "ended" else []
        return [*choosing, *self._queued.values(), *self._held.values()]

    def put(self, task: Task) -> None:
        """Queue a new task. Raises `QueueFull` (held tasks count too), or `PluginFailed` when the scheduler fails."""
        self.make_room(task)
        try:
            self._scheduler.put(task.queued)
        except Exception as error:
            raise self._scheduler_failed("put", error, task.task_id) from error
        self._queued[task.task_id] = task
        task.place = "queued"

    def make_room(self, task: Task) -> None:
        """Raise `QueueFull`, or `NoAgent` where nobody can make it shorter, when as many tasks wait as may, unless the
        scheduler names one that gives its place."""
        room = self._room
        if room.of_tenant:
            room.check_share(task.queued)
        most = self._limit_of(task.queued) if self._keeps_room else room.limit
        if len(self._queued) + len(self._held) >= most:
            limit = f"the limit is {room.limit} (scheduler.max_queue_size)"
            if most < room.limit:
                limit = f"the limit for this one is {most}, further room is kept back (scheduler.max_queue_size)"
            displaced = self._displaced(task.queued)
            if displaced is None:
                raise room.full(task.queued, f"{self.waiting} tasks wait already, {limit}")
            what = f"a task of higher rank took the place of this one: {self.waiting} wait, {limit}"
            self._sink.fail_task(displaced, room.full(displaced.queued, what))

    def _limit_of(self, queued: QueuedTask) -> int:
        """How many tasks may wait for a new one to be let in."""
        try:
            return min(self._room.limit, self._scheduler.limit(queued))
        except Exception as error:
            self._boundary.failed(self._scheduler_name, "limit", error, queued.task_id)
            return self._room.limit

    def way_past(self, task: Task) -> tuple[QueueKey, Candidates] | None:
        """What a new task is sent as, and who could take it, where it need not wait its turn: nobody else waits, an
        agent is free, and the scheduler lets such tasks pass. Call `pass_on` then, before any plugin is called, or
        else `put`."""
        if not self._lets_pass or self._queued or self._held or self._dispatching or self.gate_closed:
            return None
        return self._free(task)

    def pass_on(self, task: Task, key: QueueKey, free: Candidates) -> None:
        """Send a new task as `way_past` says."""
        self._dispatching = True
        self._events.hold()
        try:
            self._send(task, key, free)
        finally:
            self._dispatching = False
            self._choosing = None
            self._events.release()
        self.dispatch()

    def hold_new(self, task: Task, why: str) -> None:
        """Let a new task wait until `release`. Raises `QueueFull`."""
        self.make_room(task)
        self._held[task.task_id] = task
        task.place, task.why = "held", why

    def release(self, task: Task) -> None:
        """Queue a task of `hold_new`. It ends with `PluginFailed` when the scheduler fails."""
        del self._held[task.task_id]
        self._queue(task, "put", self._scheduler.put)

    def _displaced(self, queued: QueuedTask) -> Task | None:
        """The waiting task that gives its place to a new one, if the scheduler names one."""
        try:
            task_id = self._scheduler.displace(queued)
        except Exception as error:
            self._boundary.failed(self._scheduler_name, "displace", error, queued.task_id)
            return None
        if task_id is None:
            return None
        task = self._queued.get(task_id) if isinstance(task_id, str) else None
        if task is None:
            what = f"returned {reprlib.repr(task_id)}, which is no waiting task"
            self._boundary.failed(self._scheduler_name, "displace", what, queued.task_id)
        return task

    def put_back(self, task: Task) -> None:
        """Queue a task that was queued before. It ends with `PluginFailed` when the scheduler fails."""
        if self._held.pop(task.task_id, None) is not None:
            self._not_chosen.pop(task.task_id, None)
        self._queue(task, "put_back", self._scheduler.put_back)

    def hold(self, task: Task, why: str) -> None:
        """Let a task wait until `put_back`, or until `offer_held` if ``why`` is `NOT_CHOSEN`."""
        self._held[task.task_id] = task
        if why == NOT_CHOSEN:
            self._not_chosen[task.task_id] = task
        task.place, task.why = "held", why
        if self._offering is None:
            self._offering = self._clock.call_later(HELD_RETRY, self._offer_again)

    def remove(self, task: Task) -> None:
        """Forget a task that has ended; it need not be waiting. One that the scheduler has given out, and for which no
        agent was chosen, is put back first: nothing was done for it, and nobody is to be charged for it."""
        task_id, name, boundary = task.task_id, self._scheduler_name, self._boundary
        self._held.pop(task_id, None)
        was_given_out = self._not_chosen.pop(task_id, None) is not None or task is self._choosing
        if self._queued.pop(task_id, None) is None:
            if not was_given_out:
                return
            back = self._scheduler.put_back
            boundary.call(name, "put_back", back, task.queued, otherwise=None, task_id=task_id)
        boundary.call(name, "remove", self._scheduler.remove, task_id, otherwise=False, task_id=task_id)

    def offer_held(self) -> None:
        """Offer held tasks to the scheduler again, and dispatch. Call it after an agent's state has changed."""
        # A scheduler that fails ends a task, which asks for this again: the loop below goes on, without recursion.
        if self._putting_back:
            return
        if self._not_chosen:
            self._putting_back = True
            try:
                for task in list(self._not_chosen.values()):
                    if task.place == "held":
                        self.put_back(task)
            finally:
                self._putting_back = False
        self.dispatch()

    def dispatch(self) -> None:
        """Send every task whose key has a free agent, in the scheduler's order."""
        # A selector, hook or transport may cause a change that asks for a dispatch: the loop below sees it anyway.
        if self._dispatching or self.gate_closed or not self._queued:
            return
        self._dispatching = True
        self._events.hold()
        try:
            while self._queued:
                taken = self._take()
                if taken is None:
                    return
                self._send(*taken)
        finally:
            self._dispatching = False
            self._choosing = None
            self._events.release()

    def _send(self, task: Task, key: QueueKey, free: Candidates) -> None:
        """Let an agent be chosen for a task that is in neither book, and send it there."""
        self._choosing = task
        if task.wait is not None:
            late = self._room.too_late(task.queued, key.model, self._clock.now_ns())
            if late is not None:
                self._sink.fail_task(task, late)
                return
        agent = self._chooser.choose(task, free, key)
        self._choosing = None
        # The plugins that were asked may have cancelled it, or closed the gate.
        if task.place == "ended":
            return
        if agent is None or self._agent(agent.info.agent_id) is not agent:
            self.hold(task, NOT_CHOSEN)
            self._sink.task_held(task, task.why)
        else:
            self._sink.send(task, agent, key.model, free)

    def hedge(self, task: Task) -> None:
        """Send a running task to a second agent for the same model, if one can take it now that has not tried it: on
        another host than the first where there is one, else over another transport. Does nothing else."""
        first = task.leader
        if self.gate_closed or first is None:
            return
        self._events.hold()
        try:
            for key in task.queued.keys:
                free = _apart(self._candidates(key), first.agent, task) if key.model == first.model else ()
                if not free:
                    continue
                candidates = CandidateList(free)
                agent = self._chooser.choose(task, candidates, key)
                # The plugins that were asked may have ended the task or its attempt, or closed the gate.
                is_as_before = task.leader is first and not task.chunks and not self.gate_closed
                if agent is not None and is_as_before and self._agent(agent.agent_id) is agent:
                    self._sink.send(task, agent, key.model, candidates)
                return
        finally:
            self._events.release()

    def send_to(self, task: Task, agent: AgentView) -> bool:
        """Send a queued task to this agent before all others, if it can take it now, and hooks and selector do not say
        otherwise. Whether it was sent."""
        if self.gate_closed or task.task_id not in self._queued:
            return False
        for key in task.queued.keys:
            if self._candidates(key).get(agent.agent_id) is not agent:
                continue
            only = CandidateList([agent])
            chosen = self._chooser.choose(task, only, key)
            # The plugins that were asked may have cancelled it, or closed the gate.
            if chosen is None or self.gate_closed or self._agent(agent.agent_id) is not agent:
                return False
            if not self._take_out(task):
                return False
            self._sink.send(task, agent, key.model, only)
            return True
        return False

    def change_keys(self, task: Task, keys: tuple[QueueKey, ...]) -> None:
        """Let a waiting task wait for other models. Whoever calls this has what waits dispatched."""
        was_queued = self._take_out(task)
        task.queued = msgspec.structs.replace(task.queued, keys=keys)
        if was_queued:
            self._queue(task, "put_back", self._scheduler.put_back)

    def _take_out(self, task: Task) -> bool:
        """Take a task out of the queue; False when it is not there."""
        if self._queued.pop(task.task_id, None) is None:
            return False
        remove, name = self._scheduler.remove, self._scheduler_name
        self._boundary.call(name, "remove", remove, task.task_id, otherwise=False, task_id=task.task_id)
        return True

    def close_gate(self) -> None:
        """Send nothing from now on."""
        self.gate_closed = True
        if self._offering is not None:
            self._offering.cancel()
            self._offering = None

    def _offer_again(self) -> None:
        self._offering = None
        self.offer_held()

    def _queue(self, task: Task, call: str, put: Callable[[QueuedTask], None]) -> None:
        try:
            put(task.queued)
        except Exception as error:
            self._sink.fail_task(task, self._scheduler_failed(call, error, task.task_id))
            return
        self._queued[task.task_id] = task
        task.place, task.why = "queued", ""

    def _ready(self, keys: tuple[QueueKey, ...]) -> bool:
        if len(keys) == 1:
            return self._candidates(keys[0]) is not NOBODY
        return any(self._candidates(key) is not NOBODY for key in keys)

    def _free(self, task: Task) -> tuple[QueueKey, Candidates] | None:
        """The first of its keys for which an agent is free that has not tried the task, or any if there is none such,
        and who is."""
        first: tuple[QueueKey, Candidates] | None = None
        for key in task.queued.keys:
            free = self._candidates(key)
            if free is not NOBODY:
                if not task.tried or has_others(free, task.tried):
                    return key, free
                first = first or (key, free)
        return first

    def _take(self) -> tuple[Task, QueueKey, Candidates] | None:
        """The next task, no longer queued, what it is sent as, and who could take it; None when there is none to be
        sent now. Tasks at which the scheduler fails are ended on the way, one for each failure, so that this ends."""
        while self._queued:
            try:
                queued = self._scheduler.take(self._ready, self._clock.now_ns())
                if queued is None:
                    return None
                task = self._queued.pop(queued.task_id, None)
                fault: Exception | str = "returned a task that is not queued"
                if task is not None:
                    free = self._free(task)
                    if free is not None:
                        return task, *free
                    fault = "returned a task that no agent can take now"
            except Exception as error:
                task, fault = None, error
            if task is None:
                task = next((each for each in self._queued.values() if self._ready(each.queued.keys)), None)
            failure = self._scheduler_failed("take", fault, task.task_id if task is not None else "")
            if task is None:
                return None
            self._sink.fail_task(task, failure)
        return None

    def _scheduler_failed(self, call: str, fault: Exception | str, task_id: str) -> errors.PluginFailed:
        self._boundary.failed(self._scheduler_name, call, fault, task_id)
        # Its own words are for the log: they may name tasks of other clients.
        what = fault if isinstance(fault, str) else f"raised {type(fault).__name__}"
        return errors.PluginFailed(f"the {self._scheduler_name} failed in {call}: it {what}", task_id=task_id)


def _apart(free: Candidates, first: AgentView, task: Task) -> list[AgentView]:
    """Those that have least in common with ``first``, of the ones that have not tried the task and that it does not
    avoid."""
    others = [agent for agent in free if agent.agent_id not in task.tried and agent.agent_id not in task.queued.avoid]
    on_others = [agent for agent in others if agent.info.host != first.info.host]
    over_others = [agent for agent in others if agent.transport != first.transport]
    return on_others or over_others or others
