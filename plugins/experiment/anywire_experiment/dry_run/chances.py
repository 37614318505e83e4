"""What so many blocks can show: the power of each comparison, by the spread that an earlier record or pilot had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from anywire_experiment.analysis.metrics import JUDGED_SHARES, SHARES, default_metrics, measurable
from anywire_experiment.analysis.results import Results
from anywire_experiment.analysis.wording import metric_of, place
from anywire_experiment.plan.arms import Arm
from anywire_experiment.plan.metric import Metric
from anywire_experiment.plan.plan import Plan
from anywire_experiment.statistics import blocks_needed, power

SPREADS = (0.02, 0.05, 0.10, 0.20)
"""Spreads of the log ratio between blocks for which power is told where none is known."""
WANTED = 0.8
MOST_TOLD = 1000
"""Blocks from which on a comparison is called hopeless."""


class Chance(NamedTuple):
    """``equivalent``: the chance to show that arms which are alike are equivalent; ``different``: to show that arms
    which are as far apart as the margin differ. ``needed``: the blocks with which both are 80 %."""

    about: str
    spread: float
    equivalent: float
    different: float
    needed: int


class Pair(NamedTuple):
    """A comparison that the plan will make."""

    workload: str
    metric: Metric
    baseline: Arm
    candidate: Arm


def pairs(plan: Plan, arms: Sequence[Arm]) -> list[Pair]:
    """Every comparison of the plan that is judged: all of them together, as one family."""
    return [
        Pair(workload, metric, baseline, candidate)
        for workload in plan.workloads
        for baseline, candidate in _arms(plan, arms)
        for metric in metrics_of(plan, workload)
        if metric in JUDGED_SHARES or metric not in SHARES
    ]


def metrics_of(plan: Plan, workload: str) -> tuple[Metric, ...]:
    of = plan.workloads[workload]
    return tuple(each for each in plan.metrics if measurable(each, of)) or default_metrics(of, plan.objective)


def _arms(plan: Plan, arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    for candidate in arms:
        if plan.compared and candidate.levels[plan.compared] != plan.base_level:
            wanted = {**candidate.levels, plan.compared: plan.base_level}
            yield next(each for each in arms if dict(each.levels) == wanted), candidate


def chances(plan: Plan, arms: Sequence[Arm], earlier: Results | None = None) -> list[Chance]:
    """Of each comparison with a ratio whose spread ``earlier`` tells, by names of workload, metric and arms, or else by
    workload and metric. Without any: of each of `SPREADS`."""
    judged = pairs(plan, arms)
    family = len(judged)
    known = _known(earlier) if earlier is not None else {}
    made = []
    for each in judged:
        if each.metric in SHARES:
            continue
        found = known.get((each.workload, each.metric, each.candidate.name)) or known.get(
            (each.workload, each.metric, "")
        )
        if found is not None:
            others = {factor: level for factor, level in each.candidate.levels.items() if factor != plan.compared}
            names = f"{each.candidate.levels[plan.compared]} beside {each.baseline.levels[plan.compared]}"
            about = f"{each.workload}, {place(each.metric, others)}: {names}"
            made.append(_chance(plan, about, found[0], family, found[1]))
    if not made and family:
        made = [_chance(plan, f"spread {100 * each:g} %", each, family, None) for each in SPREADS]
    return made


def _known(earlier: Results) -> Mapping[tuple[str, str, str], tuple[float, int]]:
    """Spreads and the blocks that told them; without a candidate the widest of the workload's."""
    found: dict[tuple[str, str, str], tuple[float, int]] = {}
    for each in earlier.comparisons:
        if each.comparison is not None:
            told = (each.comparison.spread, each.comparison.blocks)
            found[each.workload, metric_of(each.metric), each.candidate] = told
            key = (each.workload, metric_of(each.metric), "")
            found[key] = max(found.get(key, told), told)
    return found


def _chance(plan: Plan, about: str, spread: float, family: int, known_from: int | None) -> Chance:
    alpha = 1.0 - plan.confidence

    def of(true_ratio: float) -> tuple[float, float]:
        return power(
            spread,
            plan.blocks,
            plan.margin,
            true_ratio=true_ratio,
            alpha=alpha,
            family=family,
            known_from=known_from,
        )

    needed = blocks_needed(spread, plan.margin, power=WANTED, alpha=alpha, family=family, known_from=known_from)
    return Chance(about, spread, of(1.0)[0], of(1.0 + plan.margin)[1], needed)
