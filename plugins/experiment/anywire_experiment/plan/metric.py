"""The metrics that a plan may ask for."""

from __future__ import annotations

from typing import Literal

Metric = Literal[
    "latency",
    "ttft",
    "itl",
    "wait",
    "urgent_wait",
    "throughput",
    "tokens_per_s",
    "goodput",
    "attainment",
    "fairness",
    "capacity",
    "notice",
    "recovery",
    "failures",
    "quality",
    "spent_tokens",
    "cpu_per_request",
    "energy_per_request",
    "energy_per_token",
]
"""``latency``: intended send to end of answer. ``ttft``: intended send to first token. ``itl``: time between tokens, of
one stream. ``wait``: receipt by the orchestrator to sending to an agent, or to the deadline of a task that was not sent
before. These four in ms; of each block the plan's ``statistic``. ``urgent_wait``: the mean of ``wait``, of the highest
priority. ``throughput``: answers per second. ``goodput``: whole answers within their deadlines and the plan's
objective, per second of the time in which requests came; ``attainment``: their share of all requests. ``fairness``:
Jain's index of the tokens of tenants that waited (`anywire_experiment.analysis.tenants.jain`). ``capacity``: requests
per second that are borne, where they are searched (`anywire_experiment.plan.saturation`).
``tokens_per_s``: of the whole workload. ``notice``: ms from a fault to the first thing that the
orchestrator tells of it: an agent or link that is lost, an attempt that fails, a breaker. ``recovery``: ms
from a fault until the last request was over that failed or took more than twice as long as the slowest before it.
``failures``: share of requests without a whole answer. ``quality``: share of exercises that were answered right, of all
that were asked. ``spent_tokens``: tokens of prompts and answers per request, those of the tasks that a service asked
agents for included. ``cpu_per_request``: ms of processor time of the system, per whole answer, without companions that
serve all arms alike. ``energy_per_request`` and ``energy_per_token``: joules that the machine took, per whole answer
and per token of these."""


OF_REQUESTS: frozenset[Metric] = frozenset({"latency", "ttft", "itl", "wait"})
"""Those of which a block has a value for each request; of the others it has one number."""


def fewest_samples(statistic: str) -> int:
    """Whole answers a block must have for a statistic of it to count: with fewer, p99 is the slowest and no
    percentile."""
    return {"p95": 20, "p99": 100}.get(statistic, 10)
