"""All numbers of one orchestrator: `Measures.families` gives them as they are now.

One event of each task is counted as it happens; everything else is read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from anywire.context import Context
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


class Measures:
    """Counts the tasks that end from now on, whichever way they came. ``names_tenants``: labels name tenants.
    ``without`` is a plugin whose own numbers are left out. Close it."""

    def __init__(self, context: Context, names_tenants: bool = False, without: str = "") -> None:
        self._context, self._names_tenants, self._without = context, names_tenants, without
        self._tasks = TaskMeasures(names_tenants)
        self._served = self._served_before = Served(context.clock.now_ns())
        self.close = context.events.subscribe("metrics", self._task_ended, TaskEnded)

    def _task_ended(self, task: TaskEnded) -> None:
        model = task.model
        # A name nobody serves is whatever a client made up: no label for each of those.
        if task.error and not task.agent_id and model not in self._context.models():
            model = ""
        self._tasks.add(task, model)
        self._turn_window(task.at_ns)
        sent_ns = task.stages.selected or task.at_ns
        tokens = task.prompt_tokens + (task.tokens or task.deltas)
        self._served.add(task.tenant, task.priority, task.stages.received, sent_ns, tokens)

    def _turn_window(self, now_ns: int) -> None:
        if now_ns - self._served.began_ns >= WINDOW_NS:
            over = now_ns - self._served.began_ns >= 2 * WINDOW_NS
            self._served_before = Served(now_ns) if over else self._served
            self._served = Served(now_ns)

    def _shares(self) -> Iterator[Family]:
        """How long tasks waited, those that still do included, and how evenly tenants were served."""
        now_ns = self._context.clock.now_ns()
        self._turn_window(now_ns)
        longest = dict(self._served_before.longest_ns)
        waiting = Served(now_ns)
        for task in self._context.tasks():
            if task.place != "running":
                waiting.add(task.caller.tenant, task.priority, now_ns - round(task.age_ms * 1e6), now_ns, 0)
        for each in (self._served, waiting):
            for pair, ns in each.longest_ns.items():
                longest[pair] = max(longest.get(pair, 0), ns)
        shown: dict[Labels, int] = {}
        named = BoundedNames(MOST_TENANTS)
        for (tenant, priority), ns in longest.items():
            labels = (named(tenant), str(priority)) if self._names_tenants else (str(priority),)
            shown[labels] = max(shown.get(labels, 0), ns)
        backlogged = self._served_before.backlogged(self._served.began_ns) or self._served.backlogged(now_ns)
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
        yield from self._tasks.families()
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
