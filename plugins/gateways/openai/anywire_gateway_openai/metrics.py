"""What ``GET /metrics`` tells: times of tasks as the orchestrator sees them, and the pipeline's counters.

The three histograms have the names OpenTelemetry's semantic conventions give them, as Prometheus spells those. They
count one event of each task; everything else happens when somebody scrapes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, get_args

from aiohttp import web

from anywire.agent_health import HealthState, Order
from anywire.context import Context
from anywire.events import TaskEnded
from anywire.fairness import Served, jain_index
from anywire.metric import Metric as Told
from anywire.selector import AgentView

if TYPE_CHECKING:
    from prometheus_client import Metric

OPERATION = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
LABELS = ("gen_ai_operation_name", "gen_ai_request_model", "transport", "error_type", "gen_ai_provider_name")
PROVIDER = "anywire"

# OpenTelemetry's bounds, in seconds, with finer ones before them: a fast path would end in their first bucket.
DURATION = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48,
            40.96, 81.92)  # fmt: skip
FIRST_TOKEN = (0.0005, 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

EVENTS = {
    "retries": "Tasks sent again after an attempt that failed.",
    "repeated": "Of these, tasks that the agent before may have run.",
    "retries_denied": "Tasks not sent again because the budget for retries was used up.",
    "refused": "Attempts that an agent refused.",
    "congested": "Messages to agents for which there was no room at once.",
    "fallbacks": "Times that an agent was reached over another transport than the preferred one.",
    "model_fallbacks": "Tasks sent to another model because nobody could serve theirs.",
    "trips": "Breakers of agents and links that opened.",
    "quarantines": "Times that an agent was quarantined.",
    "drained": "Orders to send an agent no further task.",
    "isolated": "Orders to send an agent no further task and to take away what runs on it.",
    "hedges": "Second attempts of streams whose first token was late.",
    "hedges_won": "Of these, attempts that were quicker than the first one.",
    "preemptions": "Streams that gave their slot to an urgent task.",
    "agents_joined": "Agents that joined.",
    "agents_lost": "Agents that were lost.",
    "links_lost": "Links to agents that were lost.",
    "stale_chunks": "Chunks that came for no open attempt.",
    "transports_unavailable": "Times that a transport could not be opened.",
}
"""The orchestrator's counters of events that are there, at 0, before the first one happens, and what they count; others
follow theirs."""

WINDOW_NS = 60 * 10**9
"""Waits and shares are told of the minute that goes on and of the one before."""

Labels = tuple[str, str, str, str]


class _Histogram:
    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text, self.bounds = name, text, bounds
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, seconds: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self.bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self.bounds, seconds)] += 1
        self._sums[labels] += seconds

    def collect(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(self.name, self.text, labels=LABELS)
        names = [*map(str, self.bounds), "+Inf"]
        for labels, counts in self._counts.items():
            buckets = list(zip(names, accumulate(counts), strict=True))
            family.add_metric((*labels, PROVIDER), buckets, self._sums[labels])
        return family


def _admission(told: dict[str, Any]) -> Iterator[Metric]:
    """What admission has refused, and how far its predictions of waits were off."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

    refused = CounterMetricFamily("anywire_admission_refused", "Tasks refused at once, by error.", labels=("error",))
    for code, number in told["refused"].items():
        refused.add_metric((code,), number)
    yield refused
    predictions = told["wait_predictions"]
    yield SummaryMetricFamily(
        "anywire_wait_prediction_error_seconds",
        "How far the predicted wait of a task in the queue was from the actual one.",
        count_value=predictions,
        sum_value=told["wait_error_s"],
    )
    yield GaugeMetricFamily(
        "anywire_wait_prediction_bias_seconds",
        "Mean of the actual wait less the predicted one.",
        told["wait_bias_s"] / max(1, predictions),
    )


def _of_services(told: Sequence[tuple[str, Told]]) -> Iterator[Metric]:
    """What services tell of themselves."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    families: dict[tuple[str, str], CounterMetricFamily | GaugeMetricFamily] = {}
    for service, metric in told:
        labels = sorted(metric.labels)
        family = families.get((service, metric.name))
        if family is None:
            kind = CounterMetricFamily if metric.counter else GaugeMetricFamily
            name = f"anywire_{re.sub('[^a-z0-9_]', '_', service.lower())}_{metric.name}"
            family = families[service, metric.name] = kind(name, metric.text, labels=labels)
        family.add_metric([metric.labels[label] for label in labels], metric.value)
    yield from families.values()


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
        self._duration = _Histogram(
            "gen_ai_server_request_duration_seconds", "From a task's submission to its end.", DURATION
        )
        self._first = _Histogram(
            "gen_ai_server_time_to_first_token_seconds", "From submission to the first token of a stream.", FIRST_TOKEN
        )
        self._per_token = _Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time between the tokens of a stream after its first.",
            PER_TOKEN,
        )
        self._served = self._served_before = Served(context.clock.now_ns())
        self.close = context.events.subscribe("metrics", self._task_ended, TaskEnded)

    def _task_ended(self, task: TaskEnded) -> None:
        model = task.model
        # A name nobody serves is whatever a client made up: no label for each of those.
        if task.error and not task.agent_id and model not in self._context.models():
            model = ""
        labels = (OPERATION.get(task.kind, task.kind), model, task.transport, task.error)
        stages = task.stages
        duration = (task.at_ns - stages.received) * 1e-9
        if task.error:
            self._failed[task.origin, task.error] += 1
        self._turn_window(task.at_ns)
        sent_ns = stages.selected or task.at_ns
        self._served.add(
            task.tenant, task.priority, stages.received, sent_ns, task.prompt_tokens + (task.tokens or task.deltas)
        )
        self._duration.observe(labels, duration)
        if task.error or not task.stream or not task.first_ms:
            return
        first = task.first_ms * 1e-3
        self._first.observe(labels, first)
        if task.deltas > 1:
            self._per_token.observe(labels, (duration - first) / (task.deltas - 1))

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

    def _health(self, views: Sequence[AgentView]) -> Iterator[Metric]:
        """How many agents, links and models are in each state of their breaker, what operators have ordered of agents,
        and how many have not been given all their slots yet."""
        from prometheus_client.core import GaugeMetricFamily

        states, orders = Counter[str](), Counter[str]()
        links, models = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        starting = 0
        for view in views:
            health = self._context.agent_health(view.agent_id)
            states[health.state] += 1
            orders[health.order] += 1
            links.update(health.links.items())
            models.update(health.models.items())
            starting += bool(health.slow_start)
        told = GaugeMetricFamily(
            "anywire_agents_by_health", "Agents known now, by the state of their breaker.", labels=("state",)
        )
        for state in get_args(HealthState):
            told.add_metric((state,), states[state])
        ordered = GaugeMetricFamily(
            "anywire_agents_ordered", "Agents known now that an operator has taken out of service.", labels=("order",)
        )
        for order in filter(None, get_args(Order)):
            ordered.add_metric((order,), orders[order])
        unwell = GaugeMetricFamily(
            "anywire_links_by_health",
            "Links of agents whose breaker is not closed, by its state.",
            labels=("transport", "state"),
        )
        for link, number in links.items():
            unwell.add_metric(link, number)
        failing = GaugeMetricFamily(
            "anywire_models_by_health",
            "Models at agents whose breaker is not closed, by its state.",
            labels=("model", "state"),
        )
        for model, number in models.items():
            failing.add_metric(model, number)
        slow = GaugeMetricFamily(
            "anywire_agents_slow_start", "Agents known now that have not been given all their slots yet.", starting
        )
        yield from (told, ordered, unwell, failing, slow)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Metrics in Prometheus's text form, or as OpenMetrics for a scraper that asks for it."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self), headers={"Content-Type": content_type, "Server": "anywire"})

    def collect(self) -> Iterator[Metric]:
        """What the encoder asks a registry for."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield from (self._duration.collect(), self._first.collect(), self._per_token.collect())
        stats = self._context.stats()
        yield GaugeMetricFamily("anywire_queue_length", "Tasks waiting to be sent.", stats["tasks"]["queued"])
        yield GaugeMetricFamily("anywire_tasks_running", "Tasks on agents now.", stats["tasks"]["running"])
        yield from self._shares()
        yield GaugeMetricFamily("anywire_websocket_connections", "WebSockets open now.", self.connections)
        agents = GaugeMetricFamily("anywire_agents", "Agents known now.", labels=("transport", "state"))
        slots = GaugeMetricFamily("anywire_slots", "Slots of all agents.", labels=("transport",))
        views = self._context.agents()
        for (transport, state), number in Counter((view.transport, view.status.state) for view in views).items():
            agents.add_metric((transport, state), number)
        for transport in {view.transport for view in views}:
            slots.add_metric((transport,), sum(view.status.slots for view in views if view.transport == transport))
        yield from (agents, slots)
        yield from self._health(views)
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
        yield from _admission(stats["admission"])
        wasted = stats["hedging"]
        text = "Seconds that agents spent on attempts which another one of the task overtook, and on hedges in vain."
        yield CounterMetricFamily("anywire_hedging_wasted_seconds", text, wasted["wasted_s"])
        text = "Tokens that these attempts made."
        yield CounterMetricFamily("anywire_hedging_wasted_tokens", text, wasted["wasted_tokens"])
        for event, number in (dict.fromkeys(EVENTS, 0) | stats["events"]).items():
            text = EVENTS.get(event, f"The orchestrator's counter {event!r}.")
            yield CounterMetricFamily(f"anywire_{event}", text, number)
        yield from _of_services(self._context.services.metrics())
