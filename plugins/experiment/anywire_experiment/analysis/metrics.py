"""The metrics there are: how each is told, and which of them a workload has."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from anywire_experiment.plan.faults import FAULT, is_none
from anywire_experiment.plan.metric import Metric
from anywire_experiment.plan.objective import Objective
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.workload import Closed, Trace, Workload


class Meaning(msgspec.Struct, frozen=True):
    """How a metric is told. ``words`` are for a better and a worse arm."""

    title: str
    unit: str
    larger_is_better: bool
    words: tuple[str, str]


MEANINGS: dict[Metric, Meaning] = {
    "latency": Meaning("latency", "ms", False, ("faster", "slower")),
    "ttft": Meaning("time to first token", "ms", False, ("faster", "slower")),
    "itl": Meaning("time per token after the first", "ms", False, ("faster", "slower")),
    "wait": Meaning("wait in the queue", "ms", False, ("shorter", "longer")),
    "urgent_wait": Meaning("mean wait of the most urgent", "ms", False, ("shorter", "longer")),
    "throughput": Meaning("answers per second", "/s", True, ("higher", "lower")),
    "tokens_per_s": Meaning("tokens per second", "/s", True, ("higher", "lower")),
    "goodput": Meaning("useful answers per second", "/s", True, ("higher", "lower")),
    "attainment": Meaning("share that held the objective", "", True, ("in time more often", "in time less often")),
    "fairness": Meaning("Jain's index of tenants that waited", "", True, ("fairer", "less fair")),
    "notice": Meaning("time to notice a fault", "ms", False, ("sooner", "later")),
    "recovery": Meaning("time to recover", "ms", False, ("sooner", "later")),
    "capacity": Meaning("rate that is borne", "/s", True, ("higher", "lower")),
    "failures": Meaning("share of failed requests", "", False, ("fewer", "more")),
    "quality": Meaning("share answered right", "", True, ("right more often", "right less often")),
    "spent_tokens": Meaning("tokens per request", "", False, ("cheaper", "dearer")),
    "cpu_per_request": Meaning(
        "processor time per answer", "ms", False, ("cheaper in processor time", "dearer in processor time")
    ),
    "energy_per_request": Meaning("energy per answer", "J", False, ("cheaper in energy", "dearer in energy")),
    "energy_per_token": Meaning("energy per token", "J", False, ("cheaper in energy", "dearer in energy")),
}


SHARES: frozenset[Metric] = frozenset({"failures", "quality", "attainment"})
"""Those that are shares of requests, which are compared by their difference."""
JUDGED_SHARES: frozenset[Metric] = frozenset({"quality", "attainment"})
"""Those of them that are judged, against the plan's `share_margin`."""
OF_FAULTS: frozenset[Metric] = frozenset({"notice", "recovery"})
"""Times of which a block has one number, where something is done to the system."""


def metrics_of(plan: Plan, workload: str) -> tuple[Metric, ...]:
    """Those of the plan that this workload of it can have, or what is judged when the plan says none of these."""
    of, by_factor = plan.workloads[workload], FAULT in plan.factors
    asked = tuple(each for each in plan.metrics if measurable(each, of, is_faulty=by_factor))
    return asked or default_metrics(of, plan.objective, is_faulty=by_factor)


def can_have(plan: Plan, metric: Metric, levels: Mapping[str, str]) -> bool:
    """Whether an arm of these levels can have it: one to which nothing is done has nothing to notice."""
    label = levels.get(FAULT)
    if label is None or metric not in OF_FAULTS:
        return True
    return not next(is_none(each.value) for each in plan.factors[FAULT] if each.label == label)


def default_metrics(
    workload: Workload, objective: Objective | None = None, *, is_faulty: bool = False
) -> tuple[Metric, ...]:
    """What is judged when the plan does not say. ``is_faulty``: a factor of the plan is a fault."""
    if workload.search is not None:
        return ("capacity",)
    usual: tuple[Metric, ...] = ("latency", "notice", "recovery", "failures") if is_faulty else _usual(workload)
    return usual if objective is None else ("attainment", *usual)


def _usual(workload: Workload) -> tuple[Metric, ...]:
    if workload.fault is not None:
        return ("notice", "recovery", "failures")
    if workload.exercises is not None:
        return ("quality", "latency", "spent_tokens", "failures")
    streams: tuple[Metric, ...] = ("ttft", "itl", "tokens_per_s") if workload.stream else ()
    closed = isinstance(workload.arrivals, Closed) and workload.arrivals.clients > 1
    return ("latency", *streams, *(("throughput",) if closed and not workload.stream else ()), "failures")


def measurable(metric: Metric, workload: Workload, *, is_faulty: bool = False) -> bool:
    """Whether ``workload`` can have it at all: a plan's metrics are for all of its workloads."""
    if workload.search is not None or metric == "capacity":
        return workload.search is not None and metric == "capacity"
    if metric in OF_FAULTS:
        return is_faulty or workload.fault is not None
    if metric == "quality":
        return workload.exercises is not None
    if metric == "fairness":
        return len(workload.tenants) > 1 or isinstance(workload.arrivals, Trace)
    return workload.stream or metric not in ("ttft", "itl")
