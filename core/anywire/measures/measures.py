"""All numbers of one orchestrator: `Measures.families` gives them as they are now.

One event of each task is counted as it happens; everything else is read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

from anywire.context import Context
from anywire.event_bus import EventBus
from anywire.events import TaskEnded
from anywire.fairness import Served, jain_index
from anywire.measures.families import AnyFamily, BoundedNames, Family, Labels, alone
from anywire.measures.pipeline_measures import (
    of_admission,
    of_agents,
    of_budgets,
    of_events,
    of_health,
    of_hedging,
    of_plugins,
)
from anywire.measures.task_measures import MOST_TENANTS, TaskMeasures

WINDOW_NS = 60 * 10**9
"""Waits and shares are told of the minute that goes on and of the one before."""


class _Counts:
    """What is counted of the tasks of one orchestrator, for all who measure it in the same way."""

    def __init__(self, context: Context, names_tenants: bool) -> None:
        self._context = context
        self.tasks = TaskMeasures(names_tenants)
        self.served = self.served_before = Served(context.clock.now_ns())
        self.users = 0
        self.unsubscribe = context.events.subscribe("metrics", self._task_ended, TaskEnded)

    def _task_ended(self, task: TaskEnded) -> None:
        model = task.model
        # A name nobody serves is whatever a client made up: no label for each of those.
        if task.error and not task.agent_id and model not in self._context.models():
            model = ""
        self.tasks.add(task, model)
        self.turn_window(task.at_ns)
        sent_ns = task.stages.selected or task.at_ns
        tokens = task.prompt_tokens + (task.tokens or task.deltas)
        self.served.add(task.tenant, task.priority, task.stages.received, sent_ns, tokens)

    def turn_window(self, now_ns: int) -> None:
        if now_ns - self.served.began_ns >= WINDOW_NS:
            over = now_ns - self.served.began_ns >= 2 * WINDOW_NS
            self.served_before = Served(now_ns) if over else self.served
            self.served = Served(now_ns)


_COUNTED: WeakKeyDictionary[EventBus, dict[bool, _Counts]] = WeakKeyDictionary()
"""Each orchestrator is known by its bus; it is counted once, however many measure it."""


class Measures:
    """The numbers of the tasks that end from now on, whichever way they came, or from when another one that measures in
    the same way began. ``names_tenants``: labels name tenants. ``without`` is a plugin whose own numbers are left out.
    Close it."""

    def __init__(self, context: Context, names_tenants: bool = False, without: str = "") -> None:
        self._context, self._names_tenants, self._without = context, names_tenants, without
        known = _COUNTED.setdefault(context.events, {})
        counts = known.get(names_tenants)
        if counts is None:
            counts = known[names_tenants] = _Counts(context, names_tenants)
        counts.users += 1
        self._counts, self._is_closed = counts, False

    def close(self) -> None:
        """Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._counts.users -= 1
        if not self._counts.users:
            self._counts.unsubscribe()
            del _COUNTED[self._context.events][self._names_tenants]

    def _shares(self) -> Iterator[Family]:
        """How long tasks waited, those that still do included, and how evenly tenants were served."""
        now_ns = self._context.clock.now_ns()
        counts = self._counts
        counts.turn_window(now_ns)
        longest = dict(counts.served_before.longest_ns)
        waiting = Served(now_ns)
        for task in self._context.tasks():
            if task.place != "running":
                waiting.add(task.caller.tenant, task.priority, now_ns - round(task.age_ms * 1e6), now_ns, 0)
        for each in (counts.served, waiting):
            for pair, ns in each.longest_ns.items():
                longest[pair] = max(longest.get(pair, 0), ns)
        shown: dict[Labels, int] = {}
        named = BoundedNames(MOST_TENANTS)
        for (tenant, priority), ns in longest.items():
            labels = (named(tenant), str(priority)) if self._names_tenants else (str(priority),)
            shown[labels] = max(shown.get(labels, 0), ns)
        backlogged = counts.served_before.backlogged(counts.served.began_ns) or counts.served.backlogged(now_ns)
        yield Family(
            "anywire_longest_wait_seconds",
            "Longest wait of a task for its sending in the last one to two minutes, of those that wait too.",
            "gauge",
            ("tenant", "priority") if self._names_tenants else ("priority",),
            [(labels, ns * 1e-9) for labels, ns in shown.items()],
        )
        yield alone(
            "anywire_backlogged_tenants", "Tenants of which tasks waited half of the time or more.", len(backlogged)
        )
        yield alone(
            "anywire_fairness_index",
            "Jain's index of the tokens of backlogged tenants: 1 when all got the same, 1/n when one of n got all.",
            jain_index(backlogged.values()),
        )

    def families(self) -> Iterator[AnyFamily]:
        """Everything, as it is now."""
        context = self._context
        yield from self._counts.tasks.families()
        stats = context.stats()
        yield alone("anywire_queue_length", "Tasks waiting to be sent.", stats["tasks"]["queued"])
        yield alone("anywire_tasks_running", "Tasks on agents now.", stats["tasks"]["running"])
        yield from self._shares()
        views = context.agents()
        yield from of_agents(views)
        yield from of_health(context, views)
        yield Family(
            "anywire_tasks",
            "Tasks ended, by how: answered, or an error.",
            "counter",
            ("outcome",),
            [((outcome,), number) for outcome, number in stats["tasks"]["ended"].items()],
        )
        yield Family(
            "anywire_answers",
            "Tasks answered over a transport.",
            "counter",
            ("transport",),
            [((transport,), number) for transport, number in stats["transports"].items()],
        )
        yield from of_admission(stats["admission"])
        yield from of_hedging(stats["hedging"])
        yield from of_budgets(stats["retries"])
        yield from of_events(stats["events"])
        yield from of_plugins([each for each in context.services.metrics() if each[0] != self._without])
