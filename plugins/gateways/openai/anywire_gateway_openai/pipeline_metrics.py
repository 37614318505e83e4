"""What the orchestrator counts and knows when somebody scrapes, as families of metrics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from anywire.agent_health import HealthState, Order
from anywire.context import Context
from anywire.metric import Metric as Told
from anywire.selector import AgentView

if TYPE_CHECKING:
    from prometheus_client import Metric

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


def of_agents(views: Sequence[AgentView]) -> Iterator[Metric]:
    """How many agents are there, and their slots."""
    from prometheus_client.core import GaugeMetricFamily

    agents = GaugeMetricFamily("anywire_agents", "Agents known now.", labels=("transport", "state"))
    slots = GaugeMetricFamily("anywire_slots", "Slots of all agents.", labels=("transport",))
    for (transport, state), number in Counter((view.transport, view.status.state) for view in views).items():
        agents.add_metric((transport, state), number)
    for transport in {view.transport for view in views}:
        slots.add_metric((transport,), sum(view.status.slots for view in views if view.transport == transport))
    yield from (agents, slots)


def of_health(context: Context, views: Sequence[AgentView]) -> Iterator[Metric]:
    """How many agents, links and models are in each state of their breaker, what operators have ordered of agents,
    and how many have not been given all their slots yet."""
    from prometheus_client.core import GaugeMetricFamily

    states, orders = Counter[str](), Counter[str]()
    links, models = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    starting = 0
    for view in views:
        health = context.agent_health(view.agent_id)
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


def of_admission(told: dict[str, Any]) -> Iterator[Metric]:
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


def of_hedging(told: Mapping[str, Any]) -> Iterator[Metric]:
    """What second attempts have cost in vain."""
    from prometheus_client.core import CounterMetricFamily

    text = "Seconds that agents spent on attempts which another one of the task overtook, and on hedges in vain."
    yield CounterMetricFamily("anywire_hedging_wasted_seconds", text, told["wasted_s"])
    text = "Tokens that these attempts made."
    yield CounterMetricFamily("anywire_hedging_wasted_tokens", text, told["wasted_tokens"])


def of_events(counted: Mapping[str, int]) -> Iterator[Metric]:
    """The orchestrator's counters of events."""
    from prometheus_client.core import CounterMetricFamily

    for event, number in {**dict.fromkeys(EVENTS, 0), **counted}.items():
        text = EVENTS.get(event, f"The orchestrator's counter {event!r}.")
        yield CounterMetricFamily(f"anywire_{event}", text, number)


def of_services(told: Sequence[tuple[str, Told]]) -> Iterator[Metric]:
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
