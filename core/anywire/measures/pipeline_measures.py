"""What the orchestrator counts and knows when somebody asks, as families of numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from anywire.agent_health import HealthState, Order
from anywire.context import Context
from anywire.measures.families import BoundedNames, Family, FamilyKind, alone
from anywire.measures.task_measures import MOST_MODELS
from anywire.metric import Metric
from anywire.selector import AgentView

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


def of_agents(views: Sequence[AgentView]) -> Iterator[Family]:
    """How many agents are there, and their slots."""
    agents = Counter((view.transport, view.status.state) for view in views)
    slots = Counter[str]()
    for view in views:
        slots[view.transport] += view.status.slots
    yield Family("anywire_agents", "Agents known now.", "gauge", ("transport", "state"), list(agents.items()))
    told = [((transport,), number) for transport, number in slots.items()]
    yield Family("anywire_slots", "Slots of all agents.", "gauge", ("transport",), told)


def of_health(context: Context, views: Sequence[AgentView]) -> Iterator[Family]:
    """How many agents, links and models are in each state of their breaker, what operators have ordered of agents,
    and how many have not been given all their slots yet."""
    states, orders = Counter[str](), Counter[str]()
    links, models = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    named = BoundedNames(MOST_MODELS)
    starting = 0
    for view in views:
        health = context.agent_health(view.agent_id)
        states[health.state] += 1
        orders[health.order] += 1
        links.update(health.links.items())
        models.update((named(model), state) for model, state in health.models.items())
        starting += bool(health.slow_start)
    yield Family(
        "anywire_agents_by_health",
        "Agents known now, by the state of their breaker.",
        "gauge",
        ("state",),
        [((state,), states[state]) for state in get_args(HealthState)],
    )
    yield Family(
        "anywire_agents_ordered",
        "Agents known now that an operator has taken out of service.",
        "gauge",
        ("order",),
        [((order,), orders[order]) for order in filter(None, get_args(Order))],
    )
    yield Family(
        "anywire_links_by_health",
        "Links of agents whose breaker is not closed, by its state.",
        "gauge",
        ("transport", "state"),
        list(links.items()),
    )
    yield Family(
        "anywire_models_by_health",
        "Models at agents whose breaker is not closed, by its state.",
        "gauge",
        ("model", "state"),
        list(models.items()),
    )
    yield alone("anywire_agents_slow_start", "Agents known now that have not been given all their slots yet.", starting)


def of_admission(told: Mapping[str, Any]) -> Iterator[Family]:
    """What admission has refused, and how far its predictions of waits were off."""
    refused = [((code,), number) for code, number in told["refused"].items()]
    yield Family("anywire_admission_refused", "Tasks refused at once, by error.", "counter", ("error",), refused)
    predictions = told["wait_predictions"]
    yield Family(
        "anywire_wait_prediction_error_seconds",
        "How far the predicted wait of a task in the queue was from the actual one.",
        "summary",
        (),
        [((), told["wait_error_s"])],
        [((), predictions)],
    )
    yield alone(
        "anywire_wait_prediction_bias_seconds",
        "Mean of the actual wait less the predicted one.",
        told["wait_bias_s"] / max(1, predictions),
    )


def of_hedging(told: Mapping[str, Any]) -> Iterator[Family]:
    """What second attempts have cost in vain."""
    text = "Seconds that agents spent on attempts which another one of the task overtook, and on hedges in vain."
    yield alone("anywire_hedging_wasted_seconds", text, told["wasted_s"], "counter")
    yield alone("anywire_hedging_wasted_tokens", "Tokens that these attempts made.", told["wasted_tokens"], "counter")


def of_budgets(told: Mapping[str, Any]) -> Iterator[Family]:
    """What is left for sending tasks again."""
    yield alone("anywire_retry_budgets", "Pairs of model and tenant with a budget for retries.", told["budgets"])
    text = "Retries that may be made now for the model and tenant that have the fewest left; 0 while there are none."
    yield alone("anywire_retry_budget_least_left", text, told["least_left"])


def of_events(counted: Mapping[str, int]) -> Iterator[Family]:
    """The orchestrator's counters of events."""
    for event, number in {**dict.fromkeys(EVENTS, 0), **counted}.items():
        text = EVENTS.get(event, f"The orchestrator's counter {event!r}.")
        yield alone(f"anywire_{event}", text, number, "counter")


def of_plugins(told: Sequence[tuple[str, Metric]]) -> Iterator[Family]:
    """What services and gateways tell of themselves."""
    families: dict[tuple[str, str], tuple[Metric, list[tuple[tuple[str, ...], float]]]] = {}
    for plugin, metric in told:
        first, samples = families.setdefault((plugin, metric.name), (metric, []))
        samples.append((tuple(metric.labels[label] for label in sorted(first.labels)), metric.value))
    for (plugin, name), (first, samples) in families.items():
        kind: FamilyKind = "counter" if first.counter else "gauge"
        whole = f"anywire_{re.sub('[^a-z0-9_]', '_', plugin.lower())}_{name}"
        yield Family(whole, first.text, kind, tuple(sorted(first.labels)), samples)
