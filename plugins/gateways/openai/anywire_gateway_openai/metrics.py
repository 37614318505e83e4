"""What ``GET /metrics`` tells: times of tasks as the orchestrator sees them, and the pipeline's counters.

One event of each task is counted as it happens; everything else is read when somebody scrapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aiohttp import web

from anywire.context import Context
from anywire.events import TaskEnded
from anywire.fairness import Served, jain_index
from anywire_gateway_openai.openapi.form import Form, described
from anywire_gateway_openai.pipeline_metrics import (
    of_admission,
    of_agents,
    of_events,
    of_health,
    of_hedging,
    of_services,
)
from anywire_gateway_openai.task_times import TaskTimes

if TYPE_CHECKING:
    from prometheus_client import Metric

WINDOW_NS = 60 * 10**9
"""Waits and shares are told of the minute that goes on and of the one before."""


class Metrics:
    """Counts the tasks that end, whichever way they came, and the errors that are answered. ``connections`` are the
    WebSockets open now. Close it."""

    def __init__(self, context: Context, names_tenants: bool = False) -> None:
        self._names_tenants = names_tenants
        self.connections = 0
        self.errors: Counter[int] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        """Tasks that ended with an error, by who failed and the code."""
        self._context = context
        self._times = TaskTimes()
        self._served = self._served_before = Served(context.clock.now_ns())
        self.close = context.events.subscribe("metrics", self._task_ended, TaskEnded)

    def _task_ended(self, task: TaskEnded) -> None:
        model = task.model
        # A name nobody serves is whatever a client made up: no label for each of those.
        if task.error and not task.agent_id and model not in self._context.models():
            model = ""
        self._times.add(task, model)
        if task.error:
            self._failed[task.origin, task.error] += 1
        self._turn_window(task.at_ns)
        sent_ns = task.stages.selected or task.at_ns
        tokens = task.prompt_tokens + (task.tokens or task.deltas)
        self._served.add(task.tenant, task.priority, task.stages.received, sent_ns, tokens)

    def _turn_window(self, now_ns: int) -> None:
        if now_ns - self._served.began_ns >= WINDOW_NS:
            over = now_ns - self._served.began_ns >= 2 * WINDOW_NS
            self._served_before = Served(now_ns) if over else self._served
            self._served = Served(now_ns)

    def _shares(self) -> Iterator[Metric]:
        """How long tasks waited, those that still do included, and how evenly tenants were served."""
        from prometheus_client.core import GaugeMetricFamily

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
        waits = GaugeMetricFamily(
            "anywire_longest_wait_seconds",
            "Longest wait of a task for its sending in the last one to two minutes, of those that wait too.",
            labels=("tenant", "priority") if self._names_tenants else ("priority",),
        )
        shown: dict[tuple[str, ...], int] = {}
        for (tenant, priority), ns in longest.items():
            labels: tuple[str, ...] = (tenant, str(priority)) if self._names_tenants else (str(priority),)
            shown[labels] = max(shown.get(labels, 0), ns)
        for labels, ns in shown.items():
            waits.add_metric(labels, ns * 1e-9)
        backlogged = self._served_before.backlogged(self._served.began_ns) or self._served.backlogged(now_ns)
        yield waits
        yield GaugeMetricFamily(
            "anywire_backlogged_tenants", "Tenants of which tasks waited half of the time or more.", len(backlogged)
        )
        yield GaugeMetricFamily(
            "anywire_fairness_index",
            "Jain's index of the tokens of backlogged tenants: 1 when all got the same, 1/n when one of n got all.",
            jain_index(backlogged.values()),
        )

    @described(Form(others=("text/plain", "application/openmetrics-text")))
    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Metrics in Prometheus's text form, or as OpenMetrics for a scraper that asks for it."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self), headers={"Content-Type": content_type, "Server": "anywire"})

    def collect(self) -> Iterator[Metric]:
        """What the encoder asks a registry for."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield from self._times.collect()
        stats = self._context.stats()
        yield GaugeMetricFamily("anywire_queue_length", "Tasks waiting to be sent.", stats["tasks"]["queued"])
        yield GaugeMetricFamily("anywire_tasks_running", "Tasks on agents now.", stats["tasks"]["running"])
        yield from self._shares()
        yield GaugeMetricFamily("anywire_websocket_connections", "WebSockets open now.", self.connections)
        views = self._context.agents()
        yield from of_agents(views)
        yield from of_health(self._context, views)
        ended = CounterMetricFamily("anywire_tasks", "Tasks ended, by how: answered, or an error.", labels=("outcome",))
        for outcome, number in stats["tasks"]["ended"].items():
            ended.add_metric((outcome,), number)
        answers = CounterMetricFamily("anywire_answers", "Tasks answered over a transport.", labels=("transport",))
        for transport, number in stats["transports"].items():
            answers.add_metric((transport,), number)
        statuses = CounterMetricFamily(
            "anywire_request_errors",
            "Requests answered with nothing but an error, by its HTTP status.",
            labels=("status",),
        )
        for status, number in self.errors.items():
            statuses.add_metric((str(status),), number)
        failed = CounterMetricFamily(
            "anywire_task_errors", "Tasks that ended with an error, by who failed.", labels=("origin", "error")
        )
        for (origin, code), number in self._failed.items():
            failed.add_metric((origin, code), number)
        yield from (ended, answers, statuses, failed)
        yield from of_admission(stats["admission"])
        yield from of_hedging(stats["hedging"])
        yield from of_events(stats["events"])
        yield from of_services(self._context.services.metrics())
