"""How long the cells of a plan will take: by an earlier record, or by the times that the plan itself names."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from anywire.builtin.synthetic import SyntheticEngine
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.plan.arms import Arm, config_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.saturation import Search, lengths
from anywire_experiment.plan.workload import Bursts, Closed, Poisson, Trace, Workload
from anywire_experiment.record.cells import Cell

AROUND = (2.0, 6.0)
"""Seconds that starting and ending the system of a cell take, least and most, where nothing is known of it."""
OVERHEAD = 0.001
"""Seconds of an answer that are not the engine's."""


class Seconds(NamedTuple):
    """Between ``least`` and ``most``. Of the ``unknown`` workloads not even that is known, and they are in neither."""

    least: float
    most: float
    unknown: tuple[str, ...] = ()

    def plus(self, other: Seconds) -> Seconds:
        unknown = tuple(dict.fromkeys([*self.unknown, *other.unknown]))
        return Seconds(self.least + other.least, self.most + other.most, unknown)

    def times(self, count: int) -> Seconds:
        return Seconds(count * self.least, count * self.most, self.unknown)


def duration(plan: Plan, arms: Sequence[Arm], earlier: RawData | None = None) -> Seconds:
    """Of all cells of the plan; an arm or a workload that ``earlier`` does not have is estimated by the plan."""
    whole = Seconds(0.0, 0.0)
    for arm in arms:
        whole = whole.plus(_cell(plan, arm, earlier).times(plan.blocks))
    return whole


def _cell(plan: Plan, arm: Arm, earlier: RawData | None) -> Seconds:
    cells = [each for each in earlier.cells if each.state == "completed" and each.arm == arm.name] if earlier else []
    found = _around(cells) if cells else Seconds(*AROUND)
    for name, workload in plan.workloads.items():
        of = earlier.plan.workloads.get(name) if earlier is not None and cells else None
        measured = _measured(cells, name, workload, of) if of is not None else None
        if measured is None:
            measured = _warm_up(workload, arm).plus(_planned(name, workload, arm))
        found = found.plus(measured)
    return found


def _around(cells: Sequence[Cell]) -> Seconds:
    """What a cell took besides its measurements: start, end, warm-ups."""
    took = sorted(
        (each.ended_ns - each.started_ns - sum(run.ended_ns - run.began_ns for run in each.workloads.values())) / 1e9
        for each in cells
    )
    return Seconds(took[len(took) // 10], took[-1 - len(took) // 10])


def _measured(cells: Sequence[Cell], name: str, workload: Workload, before: Workload) -> Seconds | None:
    """What the workload took, for as many requests as the plan now wants; None where that is another workload."""
    if workload.seconds is not None and workload.requests is None:
        return Seconds(workload.seconds, workload.seconds)
    runs = [run for each in cells if (run := each.workloads.get(name)) is not None and run.requests]
    if not runs or workload.arrivals != before.arrivals:
        return None
    each_took = median((run.ended_ns - run.began_ns) / 1e9 / run.requests for run in runs)
    wanted = workload.requests or median(run.requests for run in runs)
    took = min(each_took * wanted, workload.seconds or float("inf"))
    return Seconds(took, took)


def _planned(name: str, workload: Workload, arm: Arm) -> Seconds:
    """Of the measurement, as far as the plan tells."""
    if workload.search is not None:
        return _searched(workload.search)
    ends = [workload.seconds] if workload.seconds is not None else []
    took = _of_requests(workload.requests, workload, arm) if workload.requests is not None else None
    if took is not None:
        ends.append(took)
    if isinstance(workload.arrivals, Trace) and (window := workload.arrivals.window) is not None:
        ends.append(window.seconds / workload.arrivals.speed)
    if not ends:
        return Seconds(0.0, 0.0, (name,))
    if workload.requests is not None and took is None:
        return Seconds(0.0, min(ends))
    return Seconds(min(ends), min(ends))


def _searched(search: Search) -> Seconds:
    found = list(lengths(search))
    return Seconds(search.seconds * min(each.steps for each in found), max(each.longest(search) for each in found))


def _warm_up(workload: Workload, arm: Arm) -> Seconds:
    least = _of_requests(workload.warm_up.requests, workload, arm)
    most = _of_requests(max(workload.warm_up.requests, workload.warm_up.limit), workload, arm)
    return Seconds(least or 0.0, most or least or 0.0)


def _of_requests(count: int, workload: Workload, arm: Arm) -> float | None:
    """Seconds that so many requests take; None where the plan does not tell."""
    if workload.conversation is not None:
        return None
    match workload.arrivals:
        case Poisson(rate=rate) | Search(low=rate):
            return count / rate
        case Bursts(size=size, every=every):
            return -(-count // size) * every
        case Closed(clients=clients):
            answer = _answer(workload, arm)
            return None if answer is None else count * answer / min(clients, _slots(arm))
    return None


def _slots(arm: Arm) -> int:
    return config_of(arm).agent.slots * arm.agents


def _answer(workload: Workload, arm: Arm) -> float | None:
    """Seconds that the synthetic engine takes for an answer; None of other engines, and of sessions."""
    if arm.foreign is not None or workload.conversation is not None:
        return None
    engine = config_of(arm).engine
    if engine.name != SyntheticEngine.name:
        return None
    options = SyntheticEngine.Config.model_validate(engine.options)
    tokens = min(float(workload.max_tokens), options.length.mean)
    return OVERHEAD + (options.ttft.mean + max(tokens - 1, 0.0) * options.itl.mean) / 1e3
